import { ApiError } from './errors.ts'
import { query } from './query.ts'
import type { Event } from './types.ts'

export interface EventQuery {
  readonly sandbox?: string
  readonly volume?: string
  /** Only events with a greater sequence number. */
  readonly after?: number
}

/** The server sends a heartbeat every 15 s; a stream silent for three of them is taken as lost. */
const SILENCE_LIMIT_MS = 45_000
/** How long `events.follow` tries to come back after a lost connection before it gives up. */
const FOLLOW_RETRY_LIMIT_MS = 60_000

export interface FollowDeps {
  readonly baseUrl: string
  readonly open: (path: string, init: RequestInit) => Promise<Response>
  readonly now: () => number
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>
}

/** One connection after the other, each from the last sequence number seen. */
export async function* followEvents(
  deps: FollowDeps,
  { signal = new AbortController().signal, after, ...filter }: EventQuery & { signal?: AbortSignal },
): AsyncGenerator<Event> {
  let last = after
  const { serverSentEvents } = await import('./streams.ts')
  let lostAt: number | null = null
  let pause = 100
  let connected = false
  while (!signal.aborted) {
    const silence = new AbortController()
    let timer: NodeJS.Timeout | undefined
    const alive = (): void => {
      clearTimeout(timer)
      timer = setTimeout(() => silence.abort(), SILENCE_LIMIT_MS)
      lostAt = null
      pause = 100
    }
    try {
      const response = await deps.open(`/events${query({ ...filter, after: last })}`, {
        headers: {
          accept: 'text/event-stream',
          ...(last === undefined ? {} : { 'last-event-id': String(last) }),
        },
        signal: AbortSignal.any([signal, silence.signal]),
      })
      connected = true
      alive()
      if (response.body === null) return
      for await (const event of serverSentEvents(response.body, deps.baseUrl, alive)) {
        last = event.seq
        yield event
      }
      lostAt ??= deps.now()
    } catch (error) {
      if (signal.aborted) return
      const passing = silence.signal.aborted || (error instanceof ApiError && error.exitCode === 5)
      lostAt ??= deps.now()
      if (!passing || deps.now() - lostAt > FOLLOW_RETRY_LIMIT_MS) throw error
      // A server that was never reached is not waited for.
      if (!connected) throw error
    } finally {
      clearTimeout(timer)
    }
    await deps.sleep(pause, signal).catch(() => undefined)
    pause = Math.min(pause * 2, 2000)
  }
}
