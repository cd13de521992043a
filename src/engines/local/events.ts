import type { Clock } from '../../model/clock.ts'
import type { EngineEvent } from '../engine.ts'
import { isAlive, type ProcessIdentity } from './proc.ts'

/** How often the running ones are looked at, milliseconds: an end is then known a second late at worst. */
const LOOK_MS = 1_000
/** Every so many looks the logs are trimmed. */
const TRIM_LOOKS = 10
/** Hints that nobody has read are dropped beyond this, and `resync` stands for them. */
const QUEUE_LIMIT = 1_000

export interface Hub {
  emit(event: EngineEvent): void
  watch(id: string, dir: string, init: ProcessIdentity): void
  /** Ends only with the signal. While it is read, `ended` is called for each watched process that has gone. */
  events(signal: AbortSignal): AsyncIterable<EngineEvent>
}

export interface HubActions {
  /** Watches what runs already. */
  readonly begin: () => Promise<void>
  readonly ended: (id: string) => Promise<void>
  readonly trim: (dir: string) => Promise<void>
}

export function createHub(clock: Clock, actions: HubActions): Hub {
  const watched = new Map<string, { dir: string; init: ProcessIdentity }>()
  const readers = new Set<(event: EngineEvent) => void>()

  const emit = (event: EngineEvent): void => {
    for (const reader of readers) reader(event)
  }

  async function look(round: number): Promise<void> {
    for (const [id, { dir, init }] of watched) {
      if (!isAlive(init)) {
        watched.delete(id)
        await actions.ended(id)
      } else if (round % TRIM_LOOKS === 0) await actions.trim(dir)
    }
  }

  async function* events(signal: AbortSignal): AsyncGenerator<EngineEvent> {
    const queue: EngineEvent[] = []
    let wake: () => void = () => undefined
    const push = (event: EngineEvent): void => {
      if (queue.length >= QUEUE_LIMIT) queue.splice(0, queue.length, { kind: 'resync', at: clock.now() })
      else queue.push(event)
      wake()
    }
    let round = 0
    let cancel: () => void = () => undefined
    const tick = (): void => {
      cancel = clock.after(LOOK_MS, () => {
        // A failed look is a gap: everything may have changed.
        look((round += 1))
          .catch(() => push({ kind: 'resync', at: clock.now() }))
          .finally(() => signal.aborted || tick())
      })
    }
    const onAbort = (): void => wake()
    readers.add(push)
    signal.addEventListener('abort', onAbort)
    try {
      if (signal.aborted) return
      await actions.begin().catch(() => push({ kind: 'resync', at: clock.now() }))
      tick()
      while (!signal.aborted) {
        const next = queue.shift()
        if (next !== undefined) yield next
        else await new Promise<void>((resolve) => (signal.aborted ? resolve() : (wake = resolve)))
      }
    } finally {
      cancel()
      readers.delete(push)
      signal.removeEventListener('abort', onAbort)
    }
  }

  return {
    emit,
    events,
    watch: (id, dir, init) => void watched.set(id, { dir, init }),
  }
}
