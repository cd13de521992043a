import { createHash } from 'node:crypto'
import { fail } from '../../model/errors.ts'
import type { Controller } from '../../reconcile/controller.ts'
import type { Store, WriteTx } from '../../store/store.ts'

/** How often a compare-and-set is tried before the caller is told to try again. */
const CAS_TRIES = 5
/** How long an Idempotency-Key is remembered, milliseconds (DESIGN §6). */
export const IDEMPOTENCY_KEPT_MS: number = 24 * 60 * 60 * 1000

/** Thrown inside a transaction when a row has moved on, so that nothing of it is committed and it is tried anew. */
export class CasLost extends Error {}

/** Identifies a request that may be sent again: key + caller + route + body. */
export interface Idempotency {
  readonly key: string
  readonly requestHash: string
}

export interface Answer {
  readonly status: number
  /** Null is an empty body. */
  readonly body: unknown
}

export interface Committed extends Answer {
  /** The answer of an earlier request with the same key; nothing was done now. */
  readonly replayed: boolean
}

/** What an intent wants committed, answered and looked at. */
export interface Outcome extends Answer {
  readonly kicks: readonly string[]
}

export function requestHash(route: string, body: unknown): string {
  return createHash('sha256')
    .update(route)
    .update('\n')
    .update(JSON.stringify(body ?? null))
    .digest('hex')
}

/** The stored answer of the same request, or null. Throws `IDEMPOTENCY_MISMATCH` for another request under the key. */
export async function replay(
  tx: { idempotency: WriteTx['idempotency'] },
  idem: Idempotency,
  now: number,
): Promise<Committed | null> {
  const row = await tx.idempotency(idem.key)
  if (row === null || row.at <= now - IDEMPOTENCY_KEPT_MS) return null
  if (row.requestHash !== idem.requestHash) {
    throw fail('IDEMPOTENCY_MISMATCH', { key: idem.key.slice(idem.key.indexOf(':') + 1) })
  }
  return { status: row.status, body: row.body === '' ? null : JSON.parse(row.body), replayed: true }
}

/**
 * Commits one intent: record, event and idempotency row in one durable transaction; only then is the reconciler told
 * (DESIGN §3). `decide` runs again from the start when a row it read has moved on.
 */
export async function commitIntent(
  deps: { store: Store; controller: Pick<Controller, 'kick'>; clock: { now(): number } },
  idem: Idempotency | null,
  decide: (tx: WriteTx, now: number) => Promise<Outcome>,
): Promise<Committed> {
  const committed = await withCas(() =>
    deps.store.write(true, async (tx) => {
      const now = deps.clock.now()
      const earlier = idem === null ? null : await replay(tx, idem, now)
      if (earlier !== null) return { ...earlier, kicks: [] }
      const outcome = await decide(tx, now)
      if (idem !== null) {
        const body = outcome.body === null ? '' : JSON.stringify(outcome.body)
        await tx.putIdempotency({ ...idem, status: outcome.status, body, at: now })
      }
      return { ...outcome, replayed: false }
    }),
  )
  for (const key of committed.kicks) deps.controller.kick(key)
  return { status: committed.status, body: committed.body, replayed: committed.replayed }
}

async function withCas<T>(attempt: () => Promise<T>): Promise<T> {
  for (let i = 0; i < CAS_TRIES; i++) {
    try {
      return await attempt()
    } catch (error) {
      if (!(error instanceof CasLost)) throw error
    }
  }
  throw fail('SERVICE_UNAVAILABLE', {
    detail: 'the sandbox is changing too fast; the request was not recorded',
  })
}
