import type { Client, Sandbox } from '@holdfast/client'
import { attach, requireTerminal } from '../attach.ts'
import type { Context, Define } from '../context.ts'
import { CliError, EXIT } from '../errors.ts'
import { examples } from '../lifecycle.ts'
import { beginning, readLogs } from '../logs.ts'
import { commandWords, parseDuration } from '../parse.ts'
import { createBody, KEEP_UP, specOptions, type SpecOptions } from '../spec.ts'
import { writeAll } from '../stdio.ts'
import { cannotRun, durationOption, goals, waitFor, type Goal } from '../wait.ts'
import { PICK_SHELL } from './shell.ts'

interface RunOptions extends SpecOptions {
  readonly rm?: boolean
  readonly detach?: boolean
  readonly interactive?: boolean
  readonly tty?: boolean
  readonly timeout: number
}

export const define: Define = (command, run) => {
  specOptions(
    command
      .argument('<image>', 'image to run')
      .argument('[command...]', "main process (default: the image's own)"),
  )
    .option('--rm', 'delete the sandbox when the command has ended')
    .option('-d, --detach', 'print the id and leave it running')
    .option('-i, --interactive', 'pass stdin on')
    .option('-t, --tty', 'give the command a terminal')
    .addOption(
      durationOption('--timeout <duration>', 'give up waiting for the start after this').default(
        parseDuration('5m'),
        '5m',
      ),
    )
    .addHelpText(
      'after',
      examples([
        'holdfast run --rm alpine -- echo hello',
        'holdfast run --rm -it debian:12 -- bash',
        'holdfast run -d --name web -v site:/srv nginx',
        'tar c . | holdfast run --rm -i alpine -- tar tv',
      ]),
    )
    .addHelpText(
      'after',
      "The exit code is the command's own. Ctrl-C stops the sandbox; the second one leaves (130).\nWith -i or -t the command runs beside a process that keeps the sandbox up, so without --rm the sandbox stays.\n",
    )
    .action((image: string, words: string[], options: RunOptions) =>
      run(command, (context) => runIt(context, image, commandWords(words), options)),
    )
}

async function runIt(
  context: Context,
  image: string,
  words: readonly string[],
  options: RunOptions,
): Promise<number> {
  requireTerminal(context, options.tty === true)
  const attached = options.interactive === true || options.tty === true
  const body = createBody(image, attached ? KEEP_UP : words, options, context.io.env)
  const client = await context.client()
  const made = await client.sandboxes.create(body)
  const label = made.name ?? made.id
  if (options.detach === true) {
    context.print(made.id)
    await waitFor(context, client, made.id, label, goals.running, options.timeout)
    return 0
  }
  try {
    return attached
      ? await attachTo(context, client, made.id, label, words, options)
      : await watch(context, client, made.id, label, options)
  } finally {
    if (options.rm === true) await removeAfter(context, client, made.id, label)
  }
}

async function attachTo(
  context: Context,
  client: Client,
  id: string,
  label: string,
  words: readonly string[],
  options: RunOptions,
): Promise<number> {
  await waitFor(context, client, id, label, goals.running, options.timeout)
  const code = await attach(context, client, id, {
    command: words.length === 0 ? ['sh', '-c', PICK_SHELL] : [...words],
    interactive: options.interactive === true,
    tty: options.tty === true,
  })
  if (options.rm !== true)
    context.note(`Sandbox ${label} stays: holdfast shell ${label}, or holdfast rm ${label}`)
  return code
}

/** Shows the output of the main process until it has ended for good, and returns its exit code. */
async function watch(
  context: Context,
  client: Client,
  id: string,
  label: string,
  options: RunOptions,
): Promise<number> {
  await waitFor(context, client, id, label, started, options.timeout)
  const leave = new AbortController()
  let asked = false
  const giveBack = context.onInterrupt((count) => {
    asked = true
    if (count > 1) leave.abort()
    // A stop that does not arrive is told by the wait below, which goes on.
    else client.sandboxes.stop(id).catch((error: unknown) => context.note(String(error)))
  })
  const { io } = context
  const quiet: Context = { ...context, signal: leave.signal }
  const position = beginning()
  try {
    for (;;) {
      const before = await client.sandboxes.get(id)
      for await (const { stream, data } of readLogs(quiet, client, id, {
        follow: true,
        position,
        signal: leave.signal,
      })) {
        await writeAll(stream === 'stderr' ? io.stderr : io.stdout, data)
      }
      if (leave.signal.aborted) return EXIT.interrupted
      const sandbox = await waitFor(quiet, client, id, label, endedOrMoved(before), VERDICT_LIMIT_MS)
      if (sandbox === null) return EXIT.failed
      if (isOver(sandbox)) return (await exitOf(client, sandbox)) ?? unknownExit(sandbox, label, asked)
    }
  } catch (error) {
    if (leave.signal.aborted) return EXIT.interrupted
    throw error
  } finally {
    giveBack()
  }
}

/** A provisional exit may turn out to be the engine's, which starts the sandbox again. */
const isOver = (s: Sandbox): boolean =>
  ['Stopped', 'Terminated', 'Failed', 'Lost'].includes(s.status.state) && s.lastExit?.class !== 'provisional'

const started: Goal = {
  what: 'started',
  reached: (s) => s !== null && (goals.running.reached(s) || s.lastExit !== null),
  hopeless: cannotRun,
}

/** What the server makes of an end is known a moment later, in milliseconds at most. */
const VERDICT_LIMIT_MS = 60_000

/** The output ends when the process does: for good, or to be started once more by the restart policy. */
const endedOrMoved = (before: Sandbox): Goal => ({
  what: 'ended',
  reached: (s) =>
    s === null ||
    isOver(s) ||
    (s.status.state === 'Running' && s.instance?.startedAt !== before.instance?.startedAt),
})

/** The exit code of the last end. One that was asked for is no exit of its own, but the engine still knows its code. */
async function exitOf(client: Client, sandbox: Sandbox): Promise<number | null> {
  if (sandbox.desired.reason !== 'user' && sandbox.lastExit !== null) return sandbox.lastExit.code
  const { observed } = await client.sandboxes.explain(sandbox.id)
  return observed.instance?.exitCode ?? null
}

function unknownExit(sandbox: Sandbox, label: string, asked: boolean): number {
  if (asked) return EXIT.interrupted
  throw new CliError(
    EXIT.failed,
    `${label} ended without an exit code: ${sandbox.status.message}`,
    `holdfast explain ${label}`,
  )
}

/** Told to the server even after Ctrl-C: `--rm` promises that nothing stays. */
async function removeAfter(context: Context, client: Client, id: string, label: string): Promise<void> {
  try {
    await client.sandboxes.remove(id)
  } catch (error) {
    context.note(
      `Sandbox ${label} could not be deleted: ${error instanceof Error ? error.message : String(error)}\n  holdfast rm ${label}`,
    )
  }
}
