import { ApiError } from '@holdfast/client'
import { UsageError } from './parse.ts'

/** Ctrl-C: exit 130. */
export class Interrupted extends Error {
  constructor() {
    super('Interrupted. What the server accepted goes on.')
    this.name = 'Interrupted'
  }
}

/** A failure with its own exit code and a finished text. */
export class CliError extends Error {
  readonly exitCode: number
  readonly suggestion: string | undefined

  constructor(exitCode: number, message: string, suggestion?: string) {
    super(message)
    this.name = 'CliError'
    this.exitCode = exitCode
    this.suggestion = suggestion
  }
}

/** Errors of the one table, thrown by what runs in this process instead of a server. */
interface TableError extends Error {
  readonly exitCode: number
  readonly suggestion: string | undefined
}

/** Runs what needs no server; its failures are told and end the program as a server's would. */
export async function inProcess<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof Error && error.name === 'HoldfastError') {
      const { exitCode, message, suggestion } = error as TableError
      throw new CliError(exitCode, message, suggestion)
    }
    throw error
  }
}

export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  notFound: 3,
  conflict: 4,
  unreachable: 5,
  timeout: 124,
  interrupted: 130,
  /** What a shell shows for a program ended by SIGPIPE: the reader of our output went away. */
  brokenPipe: 141,
} as const

/** From bad to harmless; what several refs of one command end with. A code not named here counts as a plain failure. */
const SEVERITY: readonly number[] = [
  EXIT.interrupted,
  EXIT.unreachable,
  EXIT.timeout,
  EXIT.failed,
  EXIT.conflict,
  EXIT.notFound,
  EXIT.usage,
]

export function worst(codes: readonly number[]): number {
  const rank = (code: number): number => {
    const at = SEVERITY.indexOf(code)
    return at < 0 ? SEVERITY.indexOf(EXIT.failed) : at
  }
  const bad = codes.filter((code) => code !== 0)
  return bad.reduce((a, b) => (rank(b) < rank(a) ? b : a), bad[0] ?? 0)
}

export function exitCodeOf(error: unknown): number {
  if (error instanceof Interrupted) return EXIT.interrupted
  if (error instanceof UsageError) return EXIT.usage
  if (error instanceof ApiError || error instanceof CliError) return error.exitCode
  return EXIT.failed
}

/** What happened, then the next command. `prefix` names the ref it is about. */
export function describe(error: unknown, prefix = ''): string {
  const lead = `holdfast: ${prefix === '' ? '' : `${prefix}: `}`
  if (error instanceof ApiError || error instanceof CliError || error instanceof UsageError) {
    return `${lead}${error.message}${error.suggestion === undefined ? '' : `\n  ${error.suggestion}`}`
  }
  if (error instanceof Error) {
    const code = (error as NodeJS.ErrnoException).code
    return `${lead}${error.message}${code !== undefined || error instanceof Interrupted ? '' : `\n${error.stack ?? ''}`}`
  }
  return lead + String(error)
}
