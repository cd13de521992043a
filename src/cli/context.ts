import type { Client } from '@holdfast/client'
import type { Command } from 'commander'
import type { Connection } from './locate.ts'
import { createProgress, type Progress } from './progress.ts'

/** Everything of the process that commands touch; given in, so that tests give their own. */
export interface Io {
  readonly stdin: NodeJS.ReadStream
  readonly stdout: NodeJS.WriteStream
  readonly stderr: NodeJS.WriteStream
  readonly env: Readonly<Record<string, string | undefined>>
  /** Milliseconds since the epoch. */
  readonly now: () => number
  /** Rejects with the signal's reason when it is aborted first. */
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>
}

export interface GlobalOptions {
  readonly server?: string
  readonly apiKey?: string
  readonly progress?: boolean
}

export interface Context {
  readonly io: Io
  readonly globals: GlobalOptions
  /** Aborted by the first Ctrl-C, unless the command takes that over with `onInterrupt`. */
  readonly signal: AbortSignal
  readonly progress: Progress
  connection(): Connection
  client(): Promise<Client>
  /** A line on stdout: the result. */
  print(text: string): void
  /** A line on stderr: what a person wants to know and a script does not read. */
  note(text: string): void
  /** From here on Ctrl-C calls this with its count instead; the returned function gives it back. */
  onInterrupt(handler: (count: number) => void): () => void
}

/** One command's file: adds arguments, options, examples and the action to its (so far empty) command. */
export type Define = (command: Command, run: Run) => void

/** Runs a command's work and takes its exit code. */
export type Run = (command: Command, work: (context: Context) => Promise<number>) => Promise<void>

export interface ContextDeps {
  readonly io: Io
  readonly globals: GlobalOptions
  readonly signal: AbortSignal
  readonly onInterrupt: Context['onInterrupt']
  readonly connection: () => Connection
  readonly client: (connection: Connection) => Promise<Client>
}

export function createContext(deps: ContextDeps): Context {
  const { io, globals } = deps
  let connection: Connection | null = null
  let client: Promise<Client> | null = null
  const progress = createProgress(io.stderr, globals.progress)
  const self: Context = {
    io,
    globals,
    signal: deps.signal,
    progress,
    onInterrupt: deps.onInterrupt,
    connection: () => (connection ??= deps.connection()),
    client: () => (client ??= deps.client(self.connection())),
    print: (text) => {
      progress.clear()
      io.stdout.write(`${text}\n`)
    },
    note: (text) => progress.tell(text),
  }
  return self
}
