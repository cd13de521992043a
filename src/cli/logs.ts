import { ApiError, type Client, type LogLine } from '@holdfast/client'
import type { Context } from './context.ts'
import { EXIT } from './errors.ts'

/** How far a reader has come; given in again to go on from there. */
export interface Position {
  /** Time of the last piece shown, and how many of that instant were; null where the engine keeps no times. */
  at: string | null
  shown: number
  /** Bytes shown since the beginning of the output, by which a reader goes on where there are no times. */
  readonly bytes: { stdout: number; stderr: number }
}

export interface FollowOptions {
  readonly follow: boolean
  readonly position?: Position
  readonly since?: string
  readonly tail?: number
  readonly signal: AbortSignal
}

/** How long a lost log connection is tried again, in milliseconds: a server restart takes less than a second. */
const RECONNECT_LIMIT_MS = 60_000
const PAUSE_MS = 250

export const beginning = (): Position => ({ at: null, shown: 0, bytes: { stdout: 0, stderr: 0 } })

/**
 * Leaves out what was shown before: by time, and of the last instant by count; where the engine keeps no times, by
 * bytes, which is right because every connection then begins at the same place.
 */
function unseen(position: Position): (line: LogLine) => LogLine | null {
  const from = position.at
  let skipped = position.shown
  const left = { ...position.bytes }
  return (line) => {
    if (line.time !== null) {
      if (from !== null && line.time < from) return null
      if (line.time === from && skipped-- > 0) return null
      position.shown = line.time === position.at ? position.shown + 1 : 1
      position.at = line.time
      return line
    }
    const known = Math.min(left[line.stream], line.data.length)
    left[line.stream] -= known
    position.bytes[line.stream] += line.data.length - known
    return known === line.data.length ? null : { ...line, data: line.data.subarray(known) }
  }
}

/** A sandbox's output; while following, over restarts of the server too, with nothing lost and nothing twice. */
export async function* readLogs(
  context: Context,
  client: Client,
  id: string,
  options: FollowOptions,
): AsyncGenerator<LogLine> {
  const { io } = context
  const position = options.position ?? beginning()
  let lostSince: number | null = null
  for (;;) {
    const since = position.at ?? options.since
    const tail = position.at === null ? options.tail : undefined
    const fresh = unseen(position)
    try {
      const lines = client.sandboxes.logs(id, {
        follow: options.follow,
        signal: options.signal,
        ...(since === undefined ? {} : { since }),
        ...(tail === undefined ? {} : { tail }),
      })
      for await (const line of lines) {
        lostSince = null
        const shown = fresh(line)
        if (shown !== null) yield shown
      }
      return
    } catch (error) {
      if (options.signal.aborted) return
      lostSince ??= io.now()
      if (!mayGoOn(error, options, position) || io.now() - lostSince > RECONNECT_LIMIT_MS) throw error
      await io.sleep(PAUSE_MS, options.signal).catch(() => undefined)
    }
  }
}

/** From the end of an output without times nobody can tell where we were. */
function mayGoOn(error: unknown, options: FollowOptions, position: Position): boolean {
  if (!options.follow || !(error instanceof ApiError) || error.exitCode !== EXIT.unreachable) return false
  const counted = position.bytes.stdout + position.bytes.stderr
  return counted === 0 || (options.tail === undefined && options.since === undefined)
}
