import { ApiError, type Client, type LogLine } from '@holdfast/client'
import type { Context } from './context.ts'
import { EXIT } from './errors.ts'

/** How far a reader has come; given in again to go on from there. */
export interface Position {
  /** Time of the last piece shown, and how many of that instant were. */
  at: string | null
  shown: number
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

/**
 * A sandbox's output; while following, over restarts of the server too. After a reconnect it asks from the last
 * time seen and leaves out as many pieces of that instant as it had shown.
 */
export async function* readLogs(
  context: Context,
  client: Client,
  id: string,
  options: FollowOptions,
): AsyncGenerator<LogLine> {
  const { io, signal } = context
  const position = options.position ?? { at: null, shown: 0 }
  let lostSince: number | null = null
  for (;;) {
    const from = position.at
    const since = from ?? options.since
    const tail = from === null ? options.tail : undefined
    let skip = position.shown
    try {
      const lines = client.sandboxes.logs(id, {
        follow: options.follow,
        signal: options.signal,
        ...(since === undefined ? {} : { since }),
        ...(tail === undefined ? {} : { tail }),
      })
      for await (const line of lines) {
        lostSince = null
        if (line.time !== null) {
          if (from !== null && line.time < from) continue
          if (line.time === from && skip-- > 0) continue
          position.shown = line.time === position.at ? position.shown + 1 : 1
          position.at = line.time
        }
        yield line
      }
      return
    } catch (error) {
      if (options.signal.aborted) return
      const passing = options.follow && error instanceof ApiError && error.exitCode === EXIT.unreachable
      lostSince ??= io.now()
      if (!passing || io.now() - lostSince > RECONNECT_LIMIT_MS) throw error
      await io.sleep(PAUSE_MS, signal)
    }
  }
}
