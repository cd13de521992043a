import { Command, CommanderError, Option } from 'commander'
import { CATALOG, type Entry } from './catalog.ts'
import { createContext, type Context, type GlobalOptions, type Io, type Run } from './context.ts'
import { describe, EXIT, exitCodeOf, Interrupted } from './errors.ts'
import { VERSION } from './version.ts'

/** How long a command may tidy up after Ctrl-C, in milliseconds, before the program leaves anyway. */
const TIDY_LIMIT_MS = 3000

/** Options that every command takes, before or after its name. */
function connectionOptions(command: Command): Command {
  const group = 'Server to talk to:'
  return command
    .addOption(
      new Option(
        '--server <url>',
        'its address (HOLDFAST_SERVER, else that of the state directory)',
      ).helpGroup(group),
    )
    .addOption(
      new Option('--api-key <key>', 'its key (HOLDFAST_API_KEY, else that of the state directory)').helpGroup(
        group,
      ),
    )
    .addOption(new Option('--progress', 'show progress also where stderr is no terminal').helpGroup(group))
    .addOption(new Option('--no-progress', 'show none').hideHelp())
}

/** The first word that is not an option: which command's file to read. */
export function commandWord(argv: readonly string[]): string | null {
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? ''
    if (word === '--server' || word === '--api-key') i += 1
    else if (word === 'help') continue
    else if (!word.startsWith('-')) return word
  }
  return null
}

export const entryFor = (word: string | null): Entry | null =>
  CATALOG.find((e) => e.name === word || (word !== null && e.aliases?.includes(word))) ?? null

function base(io: Io): Command {
  const program = new Command('holdfast')
    .description(
      'Keeps sandboxes and their data alive through crashes, restarts and deploys, and leaks nothing.',
    )
    .version(VERSION, '-V, --version')
    .enablePositionalOptions()
    .showSuggestionAfterError()
    .addHelpText(
      'after',
      '\nFirst steps:\n  holdfast server &\n  holdfast create --name dev debian:12\n  holdfast shell dev\n\nholdfast help COMMAND tells more about each.\n',
    )
  configure(program, io)
  return connectionOptions(program)
}

/** Set on every command: commander hands these down only to commands made after. */
function configure(command: Command, io: Io): void {
  command
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text.replace(/^error: /, 'holdfast: ')),
    })
    .showHelpAfterError('(see --help)')
}

/** All commands by name, and those of `chosen` with their arguments and options read. */
export async function buildProgram(
  io: Io,
  chosen: readonly Entry[],
  run: (entry: Entry) => Run,
): Promise<Command> {
  const program = base(io)
  for (const entry of CATALOG) {
    const command = program.command(entry.name).summary(entry.summary).helpGroup(`${entry.group}:`)
    command.description(`${entry.summary[0]?.toUpperCase() ?? ''}${entry.summary.slice(1)}.`)
    for (const alias of entry.aliases ?? []) command.alias(alias)
    if (!chosen.includes(entry)) continue
    const { define } = await entry.load()
    define(command, run(entry))
    for (const leaf of command.commands.length === 0 ? [command] : command.commands) connectionOptions(leaf)
  }
  return program
}

export interface Signals {
  /** Calls the handler at each Ctrl-C until the returned function is called. */
  onInterrupt(handler: () => void): () => void
}

export interface CliDeps {
  readonly io: Io
  readonly signals: Signals
  readonly connect: (
    globals: GlobalOptions,
  ) => Pick<Parameters<typeof createContext>[0], 'connection' | 'client'>
}

/** Runs one command line and returns the exit code. Never throws for what a user can cause. */
export async function runCli(argv: readonly string[], deps: CliDeps): Promise<number> {
  const { io } = deps
  let code: number = EXIT.ok
  const run =
    (entry: Entry): Run =>
    async (command, work) => {
      const globals = command.optsWithGlobals<GlobalOptions>()
      code = await runCommand(deps, globals, entry.ownSignals === true, work)
    }
  try {
    const entry = entryFor(commandWord(argv))
    const program = await buildProgram(io, entry === null ? [] : [entry], run)
    if (argv.length === 0) {
      program.outputHelp()
      return EXIT.usage
    }
    await program.parseAsync([...argv], { from: 'user' })
    return code
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage
    io.stderr.write(`${describe(error)}\n`)
    return exitCodeOf(error)
  }
}

async function runCommand(
  deps: CliDeps,
  globals: GlobalOptions,
  ownSignals: boolean,
  work: (context: Context) => Promise<number>,
): Promise<number> {
  const { io, signals } = deps
  const abort = new AbortController()
  let handler: ((count: number) => void) | null = null
  let count = 0
  const interrupted = Promise.withResolvers<number>()
  const onSignal = (): void => {
    count += 1
    if (handler !== null) return handler(count)
    abort.abort(new Interrupted())
    if (count > 1) interrupted.resolve(EXIT.interrupted)
    io.sleep(TIDY_LIMIT_MS, new AbortController().signal).then(
      () => interrupted.resolve(EXIT.interrupted),
      (error: unknown) => interrupted.reject(error as Error),
    )
  }
  const release = ownSignals ? () => undefined : signals.onInterrupt(onSignal)
  const context = createContext({
    io,
    globals,
    signal: abort.signal,
    onInterrupt: (take) => {
      handler = take
      count = 0
      return () => {
        handler = null
      }
    },
    ...deps.connect(globals),
  })
  try {
    return await Promise.race([work(context), interrupted.promise])
  } catch (error) {
    const shown = abort.signal.aborted ? new Interrupted() : error
    context.note(describe(shown))
    return exitCodeOf(shown)
  } finally {
    context.progress.clear()
    release()
  }
}
