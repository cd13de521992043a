import type { Readable } from 'node:stream'
import { sleep, type Clock } from '../model/clock.ts'
import { fail } from '../model/errors.ts'
import type { Ids } from '../model/ids.ts'
import type { CommandExit, CommandRequest, GuestTarget, RunningCommand } from './guest.ts'
import { NotStarted, reason, type JobEnd, type Lane } from './lane.ts'
import type { NoLane, Pool } from './pool.ts'
import { startRaw } from './raw.ts'
import { INLINE_STDIN_BYTES, shellCanExport } from './script.ts'
import { endGroup, killScript, type Signal, type SignalTarget } from './signal.ts'

/** How long a signal may take to be sent. */
const SIGNAL_LIMIT_MS = 10_000
/** After its group is gone: how long a command's last output is waited for before it is dropped, then given up. */
const DRAIN_LIMIT_MS = 2_000
/** Longest time a timer can hold, about 24 days; a longer limit is none. */
const TIMER_MAX_MS = 2_147_483_647
/** Standard input is handed on in pieces of this size, so that a refusal is seen before all is copied. */
const INPUT_PIECE_BYTES = 262_144

export interface CommandContext {
  readonly clock: Clock
  readonly ids: Ids
  readonly target: GuestTarget
  readonly pool: Pool
  readonly mark: string
}

/** What a lane and a plain exec have in common. */
interface Parts {
  readonly stdout: Readable
  readonly stderr: Readable
  readonly end: Promise<JobEnd>
  /** Null where nothing can be signalled. */
  readonly signalTarget: () => Promise<SignalTarget | null>
  /** What is to be written at once, then ended. */
  readonly input: Uint8Array | null
  readonly write: (data: Uint8Array) => Promise<void>
  readonly endInput: () => void
  readonly resize: (columns: number, rows: number) => Promise<void>
  /** Lets the command's end be seen although nobody reads. */
  readonly discard: () => void
  /** Gives the command up: its connection is dropped. */
  readonly abandon: (why: string) => void
}

/** Runs a command in a lane that nobody else has. Rejects with `EXEC_FAILED` when it could not even be started. */
export async function runInLane(
  c: CommandContext,
  request: CommandRequest,
  lane: Lane,
): Promise<RunningCommand> {
  const { stdin } = request
  const inline = stdin === 'none' || (stdin !== 'stream' && stdin.length <= INLINE_STDIN_BYTES)
  try {
    const job = await lane.start({ ...request, stdin: inline ? stdin : 'stream' })
    // That lane is used up: the next command should not have to wait for a new one.
    if (!inline) c.pool.warm(request.user)
    return running(c, request, {
      ...job,
      input: inline || stdin === 'stream' ? null : stdin,
      signalTarget: () => Promise.resolve(laneTarget(lane, job.pid)),
      write: (data) => lane.write(data),
      endInput: () => lane.endInput(),
      resize: () => Promise.resolve(),
      abandon: (why) => lane.destroy(why),
    })
  } catch (error) {
    if (!(error instanceof NotStarted)) throw error
    const said = error.message === '' ? '' : ` (${error.message})`
    const what =
      request.workingDir === undefined
        ? 'the shell refused it'
        : `the working directory "${request.workingDir}" cannot be entered`
    throw fail('EXEC_FAILED', { id: c.target.sandbox, detail: `${what}${said}` })
  }
}

/** Runs a command as an exec of its own. `no-shell`: nothing but its output and status can be had. */
export async function runRaw(
  c: CommandContext,
  request: CommandRequest,
  why: NoLane,
): Promise<RunningCommand> {
  const shell = why !== 'no-shell'
  if (!shell && 'script' in request.command) throw fail('EXEC_NO_SHELL', { id: c.target.sandbox })
  // A shell drops the names it cannot export, and a script has one around it anyway.
  const wrapped = shell && ('script' in request.command || shellCanExport(request.env))
  const mark = `${c.mark}${c.ids.next()}:`
  const job = await startRaw(c.target.engine, c.target.engineId, mark, request, wrapped)
  const gaveUp = Promise.withResolvers<JobEnd>()
  return running(c, request, {
    stdout: job.stdout,
    stderr: job.stderr,
    end: Promise.race([job.end, gaveUp.promise]),
    input: typeof request.stdin === 'string' ? null : request.stdin,
    signalTarget: async () => {
      if (!shell) return null
      const pid = await job.pid
      return pid === null ? { scope: 'marked', mark } : { scope: 'either', pid }
    },
    write: (data) => job.exec.write(data),
    endInput: () => job.exec.end(),
    resize: (columns, rows) => job.exec.resize(columns, rows),
    discard() {
      job.stdout.resume()
      job.stderr.resume()
    },
    abandon(reasonText) {
      gaveUp.resolve({ lost: reasonText })
      job.exec.destroy()
    },
  })
}

function running(c: CommandContext, request: CommandRequest, parts: Parts): RunningCommand {
  let ended = false
  let timedOut = false
  let ending: Promise<void> | null = null
  /** Set when our own KILL takes the lane along (no `setsid` in the image), which loses the status. */
  let laneKilled = false

  const target = async (): Promise<SignalTarget> => {
    const to = await limited(c.clock, parts.signalTarget(), 'the command did not tell its pid')
    if (to === null) throw fail('EXEC_NO_SHELL', { id: c.target.sandbox })
    return to
  }
  const kill = async (signal: Signal): Promise<void> => {
    if (ended) return
    const to = await target()
    if (signal === 'KILL' && to.scope === 'lane') laneKilled = true
    await runScript(c, request.user, killScript(signal, to))
  }
  const endAll = async (drop: boolean): Promise<void> => {
    let stuck: string | null = null
    try {
      const to = await target()
      laneKilled = to.scope === 'lane'
      const ending = await endGroup(c.clock, to, (script) => runScript(c, request.user, script))
      if (ending === 'absent') timedOut = false
      if (ending === 'left') stuck = 'it was still there after KILL'
    } catch (error) {
      stuck = reason(error)
    }
    await within(c.clock, parts.end, DRAIN_LIMIT_MS)
    if (!ended && drop) {
      parts.discard()
      await within(c.clock, parts.end, DRAIN_LIMIT_MS)
    }
    if (!ended && stuck !== null) parts.abandon(`the command could not be ended: ${stuck}`)
  }
  /** A second caller joins the first; one that reads no more has the output dropped as well. */
  const finish = (drop: boolean): Promise<void> => {
    if (ended) return Promise.resolve()
    if (ending === null) ending = endAll(drop)
    else if (drop) ending = ending.then(() => (ended ? undefined : endAll(true)))
    return ending
  }
  const stopTimer =
    request.timeoutMs === null || request.timeoutMs > TIMER_MAX_MS
      ? () => undefined
      : c.clock.after(request.timeoutMs, () => {
          timedOut = true
          void finish(false)
        })
  const exit = parts.end.then((end): CommandExit => {
    ended = true
    stopTimer()
    if ('status' in end) return { code: end.status, timedOut, lost: null }
    return laneKilled ? { code: 137, timedOut, lost: null } : { code: null, timedOut, lost: end.lost }
  })

  const takesInput = request.stdin === 'stream'
  /** Input for a command that has ended goes nowhere, as into a closed pipe; `exit` tells the writer. */
  const write = (data: Uint8Array): Promise<void> =>
    ended ? Promise.resolve() : Promise.race([parts.write(data), parts.end.then(() => undefined)])
  if (parts.input !== null) void giveInput(parts.input, write, parts.endInput)
  return {
    stdout: parts.stdout,
    stderr: parts.stderr,
    exit,
    write: (data) => (takesInput ? write(data) : Promise.reject(noInput())),
    end() {
      if (takesInput && !ended) parts.endInput()
    },
    resize: parts.resize,
    kill,
    cancel: () => finish(true),
  }
}

/** Runs a short script beside the command, as the same user; tells whether it succeeded. */
async function runScript(c: CommandContext, user: string | undefined, script: string): Promise<boolean> {
  const send = async (): Promise<boolean> => {
    const lane = c.target.engine.capabilities.lanes ? await c.pool.take(user, true) : 'full'
    const text = { command: { script: `{ ${script}; } 2>/dev/null` }, stdin: 'none' } as const
    if (typeof lane === 'string') {
      const job = await startRaw(c.target.engine, c.target.engineId, c.mark, { ...text, user }, false)
      job.stdout.resume()
      job.stderr.resume()
      return succeeded(await job.end)
    }
    const job = await lane.start(text)
    job.discard()
    return succeeded(await job.end)
  }
  return limited(c.clock, send(), 'no signal could be sent')
}

/** The promise, or after `SIGNAL_LIMIT_MS` an error with this text. */
async function limited<T>(clock: Clock, promise: Promise<T>, what: string): Promise<T> {
  const limit = Promise.withResolvers<never>()
  const stop = clock.after(SIGNAL_LIMIT_MS, () =>
    limit.reject(new Error(`${what} within ${SIGNAL_LIMIT_MS} ms`)),
  )
  try {
    return await Promise.race([promise, limit.promise])
  } finally {
    stop()
  }
}

function succeeded(end: JobEnd): boolean {
  if ('lost' in end) throw new Error(end.lost)
  return end.status === 0
}

function laneTarget(lane: Lane, pid: number): SignalTarget {
  if (lane.grouping === 'own') return { scope: 'group', pid }
  return lane.grouping === 'lane' ? { scope: 'lane', pid, group: lane.pid } : { scope: 'either', pid }
}

async function giveInput(
  data: Uint8Array,
  write: (data: Uint8Array) => Promise<void>,
  end: () => void,
): Promise<void> {
  try {
    for (let at = 0; at < data.length; at += INPUT_PIECE_BYTES)
      await write(data.subarray(at, at + INPUT_PIECE_BYTES))
    end()
  } catch {
    // The connection broke: the command's exit tells it, to the one who waits for it.
  }
}

function noInput(): Error {
  return fail('INVALID_REQUEST', { issues: [{ path: 'stdin', message: 'was not asked for as a stream' }] })
}

/** Waits for the promise, at most this long. */
async function within(clock: Clock, promise: Promise<unknown>, ms: number): Promise<void> {
  const done = new AbortController()
  try {
    await Promise.race([promise, sleep(clock, ms, done.signal).catch(() => undefined)])
  } finally {
    done.abort()
  }
}
