import type { Answer } from '../support/server.ts'
import { ask, type Caller } from './requests.ts'
import type { Outcome, SoakHistory } from './soak-history.ts'

export interface SoakCaller extends Caller {
  readonly name: string
  readonly history: SoakHistory
}

export interface Wanted<T> {
  readonly target: string
  readonly action: string
  readonly value?: string
  /** What only the answer tells: the id of what was made, the expiry that holds. */
  readonly told?: (body: T) => { readonly target?: string; readonly value?: string }
  readonly method: string
  readonly path: string
  readonly body?: object
  /** Sent with an Idempotency-Key, the same for each try. */
  readonly keyed?: boolean
  /** Gives up after so many; never when absent. */
  readonly tries?: number | undefined
}

export interface Noted<T> {
  readonly answer: Answer<T> | null
  readonly outcome: Outcome
  /** What an exact repeat must send; null when it was sent without a key. */
  readonly key: string | null
}

/** One intent, with its outcome in the history. */
export async function request<T>(o: SoakCaller, w: Wanted<T>): Promise<Noted<T>> {
  const begunAt = Date.now()
  const key = w.keyed === true ? `${o.name}-${w.action.replace(' ', '-')}-${o.random.int(0, 2 ** 31)}` : null
  const options = {
    ...(w.body === undefined ? {} : { body: w.body }),
    ...(key === null ? {} : { idempotencyKey: key }),
  }
  const { answer, unanswered } = await ask<T>(o, w.method, w.path, options, w.tries)
  // A delete that was recorded without an answer is finished when its repeat finds nothing.
  const finished = w.method === 'DELETE' && answer?.status === 404 && unanswered > 0
  const ok = answer !== null && (answer.status < 300 || finished)
  const outcome: Outcome = ok ? 'ok' : answer === null && unanswered > 0 ? 'unknown' : 'refused'
  const told = ok && w.told !== undefined ? w.told(answer.body) : {}
  o.history.add({
    kind: 'op',
    client: o.name,
    target: told.target ?? w.target,
    action: w.action,
    value: told.value ?? w.value ?? null,
    outcome,
    status: answer?.status ?? null,
    begunAt,
    endedAt: Date.now(),
    // Only a key makes a repeat and its late first try one and the same.
    late: unanswered > 0 && !(outcome === 'ok' && key !== null),
  })
  o.history.count(outcome === 'ok' ? w.action : outcome)
  return { answer, outcome, key }
}
