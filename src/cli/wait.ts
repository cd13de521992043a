import { ApiError, type Client, type Sandbox } from '@holdfast/client'
import { InvalidArgumentError, Option, type Command } from 'commander'
import type { Context } from './context.ts'
import { CliError, EXIT } from './errors.ts'
import { parseDuration, UsageError } from './parse.ts'

/** Five minutes: room for pulling a large image. */
const DEFAULT_TIMEOUT = '5m'
/** Pauses between two looks, in milliseconds: quick at first, because most things are done at once. */
const FIRST_PAUSE_MS = 20
const LARGEST_PAUSE_MS = 500
/** A cause that reads differently at each attempt is told again only after this, in milliseconds. */
const REPEAT_AFTER_MS = 30_000
/** How long a hopeless state must hold before we give up: right after a request the status still is the one before it. */
const HOPELESS_AFTER_MS = 2000
/** States whose cause is told also where no progress is shown: they may need a person. */
const TROUBLE = new Set(['Blocked', 'Lost', 'Failed', 'Unknown'])

export interface WaitOptions {
  /** False with `--no-wait`. */
  readonly wait: boolean
  /** Milliseconds. */
  readonly timeout: number
}

export interface Goal {
  /** Completes "is not … yet": `running`. */
  readonly what: string
  /** `null` is a sandbox that is gone. */
  readonly reached: (sandbox: Sandbox | null) => boolean
  /** Why waiting longer is of no use, or null. */
  readonly hopeless?: (sandbox: Sandbox) => CliError | null
}

/** For commander: a wrong value is a usage error with our words. */
export function argument<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text)
    } catch (error) {
      if (!(error instanceof UsageError)) throw error
      throw new InvalidArgumentError(`${error.message}. ${error.suggestion ?? ''}`)
    }
  }
}

export const durationOption = (flags: string, description: string): Option =>
  new Option(flags, description).argParser(argument(parseDuration))

export function waitOptions(command: Command): Command {
  return command
    .option('--no-wait', 'return as soon as the server has accepted it')
    .addOption(
      durationOption(
        '--timeout <duration>',
        'give up waiting after this (exit 124); it goes on by itself',
      ).default(parseDuration(DEFAULT_TIMEOUT), DEFAULT_TIMEOUT),
    )
}

async function look(client: Client, id: string): Promise<Sandbox | null> {
  try {
    const sandbox = await client.sandboxes.get(id)
    return sandbox.deletedAt === null ? sandbox : null
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null
    throw error
  }
}

const waitedTooLong = (label: string, goal: Goal, timeoutMs: number, last: string): CliError =>
  new CliError(
    EXIT.timeout,
    `${label} is not ${goal.what} after ${timeoutMs / 1000} s${last === '' ? '' : ` (${last})`}. It goes on by itself; nothing was undone.`,
    `holdfast explain ${label}`,
  )

const isGone = (label: string): CliError =>
  new CliError(
    EXIT.notFound,
    `${label} was deleted meanwhile.`,
    'Read what is left of it: holdfast inspect --all',
  )

/** Waits until the goal is reached, and tells why it waits. A server that is away for a while is waited for too. */
export async function waitFor(
  context: Context,
  client: Client,
  id: string,
  label: string,
  goal: Goal,
  timeoutMs: number,
): Promise<Sandbox | null> {
  const { io, progress, signal } = context
  const until = io.now() + timeoutMs
  const told = new Map<string, { text: string; at: number }>()
  let last = ''
  let hopelessSince: number | null = null
  const show = (state: string, message: string): void => {
    last = message === '' ? state : `${state}: ${message}`
    progress.update(label, last)
    const before = told.get(state)
    if (!TROUBLE.has(state) || before?.text === last) return
    if (before !== undefined && io.now() - before.at < REPEAT_AFTER_MS) return
    context.note(`${label} is ${last}`)
    told.set(state, { text: last, at: io.now() })
  }
  try {
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 1.5, LARGEST_PAUSE_MS)) {
      signal.throwIfAborted()
      try {
        const sandbox = await look(client, id)
        if (goal.reached(sandbox)) return sandbox
        if (sandbox === null) throw isGone(label)
        const reason = goal.hopeless?.(sandbox) ?? null
        // What ends the wait is told by the error itself.
        if (reason === null) show(sandbox.status.state, sandbox.status.message)
        hopelessSince = reason === null ? null : (hopelessSince ?? io.now())
        if (reason !== null && hopelessSince !== null && io.now() - hopelessSince >= HOPELESS_AFTER_MS)
          throw reason
      } catch (error) {
        if (!(error instanceof ApiError) || error.exitCode !== EXIT.unreachable) throw error
        show('waiting', error.message)
      }
      if (io.now() + pause > until) throw waitedTooLong(label, goal, timeoutMs, last)
      await io.sleep(pause, signal)
    }
  } finally {
    progress.done(label)
  }
}

const caughtUp = (s: Sandbox): boolean => s.observedGeneration >= s.generation

/** Why it will not be running by waiting alone, or null. */
export function cannotRun(s: Sandbox): CliError | null {
  const { state, message } = s.status
  const label = s.name ?? s.id
  if (state === 'Failed')
    return new CliError(EXIT.failed, `${label} failed: ${message}`, `holdfast explain ${label}`)
  if (state === 'Lost' && s.restartPolicy !== 'always') {
    return new CliError(EXIT.failed, `${label} lost its instance: ${message}`, `holdfast recover ${label}`)
  }
  return null
}

/** It ran and ended by itself: a short command may be over before it is ever seen running. */
export const hasFinished = (s: Sandbox): boolean =>
  (s.status.state === 'Stopped' || s.status.state === 'Terminated') &&
  s.desired.state === 'stopped' &&
  s.desired.reason !== 'user'

type GoalName = 'running' | 'stopped' | 'paused' | 'deleted' | 'settled'

export const goals: Readonly<Record<GoalName, Goal>> = {
  running: {
    what: 'running',
    reached: (s) =>
      s !== null && ((s.status.state === 'Running' && caughtUp(s)) || (hasFinished(s) && caughtUp(s))),
    hopeless: cannotRun,
  },
  stopped: {
    what: 'stopped',
    reached: (s) =>
      s !== null && (s.status.state === 'Stopped' || s.status.state === 'Terminated') && caughtUp(s),
  },
  paused: {
    what: 'paused',
    reached: (s) => s !== null && s.status.state === 'Paused' && caughtUp(s),
    hopeless: cannotRun,
  },
  deleted: { what: 'deleted', reached: (s) => s === null },
  settled: { what: 'up to date', reached: (s) => s !== null && caughtUp(s) },
}
