import type { Clock } from '../../model/clock.ts'
import { FileError, type FileView } from './files.ts'

export type Signal = 'INT' | 'TERM' | 'KILL'
const NUMBER: Record<Signal, number> = { INT: 2, TERM: 15, KILL: 9 }

/** Where output goes; resolves when it was taken, which is the back-pressure. */
export type Sink = (data: Uint8Array) => Promise<void>
/** Gives the next input, null at its end. */
export type Source = () => Promise<Uint8Array | null>

export interface ProcessSetup {
  readonly env: Readonly<Record<string, string>>
  readonly workingDir: string
  readonly user: string
  readonly hostname: string
  readonly files: FileView
  readonly stdin: Source
  readonly stdout: Sink
  readonly stderr: Sink
  /** The terminal's size now, or null without one. */
  readonly terminal: () => { readonly columns: number; readonly rows: number } | null
  /** Answers on a port with what is sent, for as long as the process lives. */
  readonly listen: (port: number) => void
}

/** What a program may do. Nothing here settles once the process has ended, so a killed program simply stops. */
export interface System extends Omit<ProcessSetup, 'stdout' | 'stderr' | 'stdin'> {
  print(text: string | Uint8Array): Promise<void>
  complain(text: string): Promise<void>
  read: Source
  sleep(ms: number): Promise<void>
  /** Replaces what TERM does. */
  onTerm(handler: () => void): void
  exit(code: number): void
  raise(signal: Signal): void
  forever(): Promise<never>
}

export type Program = (system: System) => Promise<number>

export interface Process {
  /** The exit status, 128+n for a signal. */
  readonly ended: Promise<number>
  alive(): boolean
  signal(signal: Signal): void
  freeze(): void
  thaw(): void
}

export function spawn(clock: Clock, program: Program, setup: ProcessSetup): Process {
  let code: number | null = null
  let onTerm: (() => void) | null = null
  let frozen: { readonly open: Promise<void>; readonly release: () => void } | null = null
  const { promise: ended, resolve } = Promise.withResolvers<number>()

  const end = (status: number): void => {
    if (code !== null) return
    code = status
    resolve(status)
  }
  const never = (): Promise<never> => new Promise(() => undefined)
  /** Passes a result on to the program, later when it is frozen, never when it has ended. */
  const pass = async <T>(work: Promise<T>): Promise<T> => {
    const value = await work
    while (frozen !== null) await frozen.open
    return code === null ? value : never()
  }
  const signal = (which: Signal): void => {
    if (code !== null) return
    if (which === 'TERM' && onTerm !== null) onTerm()
    else end(128 + NUMBER[which])
  }
  const system: System = {
    ...setup,
    print: (text) => pass(setup.stdout(Buffer.from(text))),
    complain: (text) => pass(setup.stderr(Buffer.from(text))),
    read: () => pass(setup.stdin()),
    sleep: (ms) => pass(new Promise<void>((done) => void clock.after(ms, done))),
    onTerm: (handler) => void (onTerm = handler),
    exit: end,
    raise: signal,
    forever: never,
  }
  const run = async (): Promise<void> => {
    try {
      end(await program(system))
    } catch (error) {
      const text = error instanceof FileError ? error.message : String(error)
      await system.complain(`${text}\n`)
      end(1)
    }
  }
  void run()

  return {
    ended,
    alive: () => code === null,
    signal,
    freeze() {
      if (frozen !== null) return
      const { promise, resolve: release } = Promise.withResolvers<void>()
      frozen = { open: promise, release }
    },
    thaw() {
      frozen?.release()
      frozen = null
    },
  }
}
