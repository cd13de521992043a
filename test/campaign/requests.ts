import { setTimeout as delay } from 'node:timers/promises'
import type { Answer, CallOptions, TestServer } from '../support/server.ts'
import type { History } from './model.ts'
import type { Random } from './random.ts'

/** A client gives up on one intent after this: the server was never up for that long, ms. */
const INTENT_LIMIT_MS = 120_000
/** One try, ms. */
const TRY_LIMIT_MS = 10_000

export interface Caller {
  readonly server: TestServer
  readonly history: Pick<History, 'count' | 'violated'>
  readonly random: Random
  /** Gives up on one intent after this, ms. */
  readonly intentLimitMs?: number
}

export interface Asked<T> {
  /** Null: whoever asked gave up before there was an answer that says something. */
  readonly answer: Answer<T> | null
  /** Tries that ended without an answer: each may have been recorded, or still be. */
  readonly unanswered: number
}

/** Repeats until there is an answer that says something (a 2xx or a 4xx), or until `tries` are used up. */
export async function ask<T>(
  o: Caller,
  method: string,
  path: string,
  options: CallOptions,
  tries: number = Number.POSITIVE_INFINITY,
): Promise<Asked<T>> {
  const { intentLimitMs: limitMs = INTENT_LIMIT_MS } = o
  const end = performance.now() + limitMs
  let unanswered = 0
  for (let n = 1; ; n++) {
    try {
      const answer = await o.server.call<T>(method, path, { limitMs: TRY_LIMIT_MS, ...options })
      if (answer.status < 500) return { answer, unanswered }
      if (answer.status !== 503)
        o.history.violated(`${method} ${path} answered ${answer.status}: ${JSON.stringify(answer.body)}`)
    } catch {
      // The server was killed before it answered, or is not up yet: whether it was recorded, the next answer tells.
      unanswered++
      o.history.count('unanswered')
    }
    if (n >= tries) return { answer: null, unanswered }
    if (performance.now() > end) throw new Error(`${method} ${path} had no answer for ${limitMs} ms`)
    await delay(o.random.int(10, 120))
  }
}

/** The same, and gives up never but at the limit, which is an error. */
export async function settle<T>(
  o: Caller,
  method: string,
  path: string,
  options: CallOptions,
): Promise<Answer<T>> {
  const { answer } = await ask<T>(o, method, path, options)
  if (answer === null) throw new Error(`${method} ${path} had no answer`)
  return answer
}
