import type { Readable } from 'node:stream'
import type { Engine } from '../engines/engine.ts'

/** One running instance, named by the engine's id and its start time: a lane of an earlier start is never reused. */
export interface GuestTarget {
  readonly engine: Engine
  readonly sandbox: string
  readonly engineId: string
  readonly startedAt: number
}

export interface CommandRequest {
  /** An argument list, or a script for `sh -c`. */
  readonly command: readonly string[] | { readonly script: string }
  readonly workingDir?: string | undefined
  readonly env?: Readonly<Record<string, string>> | undefined
  readonly user?: string | undefined
  /** `none`: /dev/null. Bytes: given whole. `stream`: written with `write` and ended with `end`. */
  readonly stdin: 'none' | 'stream' | Uint8Array
  /** The command's group is ended (INT, TERM, KILL) after this; null means no limit. */
  readonly timeoutMs: number | null
  readonly tty?: { readonly columns: number; readonly rows: number } | undefined
}

export interface CommandExit {
  /** The command's status, 128+n for a signal. Null when the connection or the instance was lost first: see `lost`. */
  readonly code: number | null
  readonly timedOut: boolean
  /** Why the status is not known, or null. */
  readonly lost: string | null
}

export interface RunningCommand {
  /** Both must be read: they block the command when they are not (back-pressure). With a tty all is on stdout. */
  readonly stdout: Readable
  readonly stderr: Readable
  write(data: Uint8Array): Promise<void>
  end(): void
  resize(columns: number, rows: number): Promise<void>
  /** Sends a signal to the command's whole process group. */
  kill(signal: 'INT' | 'TERM' | 'KILL' | 'HUP' | 'QUIT' | 'USR1' | 'USR2'): Promise<void>
  /** INT, then TERM, then KILL to the group, until it is gone. Used when a client goes away. */
  cancel(): Promise<void>
  readonly exit: Promise<CommandExit>
}

/** Commands inside instances, over the engine's exec stream (DESIGN §7). */
export interface Guest {
  run(target: GuestTarget, request: CommandRequest): Promise<RunningCommand>
  /** Opens the first lane ahead of use; failures are kept for `run` to tell. */
  warm(target: GuestTarget): void
  /** Closes every lane of an instance (before it is stopped, or when it was found gone). */
  forget(engineId: string): void
  close(): Promise<void>
}
