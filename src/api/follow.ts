import { sleep } from '../model/clock.ts'
import type { EventRecord } from '../model/records.ts'
import type { EventFilter } from '../store/store.ts'
import type { ApiDeps } from './deps.ts'

/** Events of one read. */
const BATCH = 200
/** How long a follower trusts the bell before it looks itself, milliseconds. */
const POLL_MS = 1_000
/** A comment is sent when nothing else was for this long, milliseconds, so that proxies and clients know we are there. */
const HEARTBEAT_MS = 15_000

type Deps = Pick<ApiDeps, 'store' | 'clock' | 'bell'>
type Scope = Pick<EventFilter, 'subject' | 'id'>

/** Every event after `afterSeq`, then those to come, in order and without gaps; `null` is a heartbeat. Ends on abort. */
async function* follow(
  deps: Deps,
  scope: Scope,
  afterSeq: number,
  signal: AbortSignal,
): AsyncGenerator<EventRecord | null> {
  let last = afterSeq
  let sentAt = deps.clock.monotonic()
  yield null
  while (!signal.aborted) {
    // Taken before the read: a ring between the read and the wait is not missed.
    const rung = new AbortController()
    const bell = deps.bell.wait(AbortSignal.any([signal, rung.signal]))
    const events = await deps.store.read((tx) => tx.events({ ...scope, afterSeq: last, limit: BATCH }))
    for (const event of events) {
      last = event.seq
      yield event
    }
    if (events.length > 0) sentAt = deps.clock.monotonic()
    if (events.length < BATCH) await Promise.race([bell, pause(deps, AbortSignal.any([signal, rung.signal]))])
    rung.abort()
    if (deps.clock.monotonic() - sentAt < HEARTBEAT_MS) continue
    sentAt = deps.clock.monotonic()
    yield null
  }
}

async function pause(deps: Deps, signal: AbortSignal): Promise<void> {
  await sleep(deps.clock, POLL_MS, signal).catch(() => {
    // Aborted: the follower looks at its signal next.
  })
}

/** The same as server-sent events; the id is the sequence number, so that `Last-Event-ID` continues exactly. */
export async function* eventStream(
  deps: Deps,
  scope: Scope,
  afterSeq: number,
  signal: AbortSignal,
  wire: (event: EventRecord) => object,
): AsyncGenerator<string> {
  for await (const event of follow(deps, scope, afterSeq, signal)) {
    yield event === null
      ? ': \n\n'
      : `id: ${event.seq}\nevent: ${event.reason}\ndata: ${JSON.stringify(wire(event))}\n\n`
  }
}
