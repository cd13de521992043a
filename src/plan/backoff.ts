import type { Backoff, Breaker } from '../model/records.ts'

/** First wait after a failure, ms: long enough not to hammer, short enough that a hiccup is not noticed. */
export const BACKOFF_BASE_MS = 500
/** Longest wait between two tries, ms: a cause that a person removed is noticed within five minutes. */
export const BACKOFF_MAX_MS = 300_000
/** Failures in a row after which the breaker opens. At the base above, that is about four minutes of trying. */
export const BREAKER_AFTER = 9
/** While the breaker is open, one try is made this often, ms. */
export const BREAKER_PROBE_MS = 600_000

/**
 * When a stored time is due. One that lies further ahead than any wait of its kind was written under a clock that has
 * stepped back since: it is due now.
 */
export function dueAt(at: number, longestMs: number, now: number): number {
  return at > now + 1.2 * longestMs ? now : at
}

/** The next backoff after a failure. `random` in [0,1) spreads keys that failed together by up to 20 %. */
export function nextBackoff(
  previous: Backoff | null,
  failure: { readonly error: string; readonly code: string },
  now: number,
  random: number,
): Backoff {
  const attempts = (previous?.attempts ?? 0) + 1
  const wait = Math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** Math.min(attempts - 1, 20))
  return {
    attempts,
    nextAt: now + Math.round(wait * (0.9 + 0.2 * random)),
    error: failure.error,
    code: failure.code,
    at: now,
  }
}

/** Opens, or keeps, the breaker once `attempts` failures came in a row. */
export function nextBreaker(
  previous: Breaker | null,
  attempts: number,
  reason: string,
  now: number,
): Breaker | null {
  if (attempts < BREAKER_AFTER) return previous
  return { since: previous?.since ?? now, reason, probeAt: now + BREAKER_PROBE_MS }
}

/** First delay before a workload that ended is started again, ms; doubles each time in a row. */
export const RESTART_BASE_MS = 200
/** Longest delay between restarts, ms, as people know it from other engines. */
export const RESTART_MAX_MS = 60_000
/** A start that lasted this long counts as a success and resets the count, ms. */
export const RESTART_RESET_MS = 60_000
/** Restarts in a row after which the breaker opens. */
export const RESTART_BREAKER_AFTER = 12

/** The wait before restart number `n` (1, 2, …) in a row. */
export function restartDelayMs(n: number): number {
  return Math.min(RESTART_MAX_MS, RESTART_BASE_MS * 2 ** Math.min(n - 1, 20))
}
