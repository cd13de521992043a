/** Wall and monotonic clock may disagree by this much before expiry is held, ms (DESIGN §5, volumes rules). */
export const CLOCK_DISAGREE_MS = 60_000
/** A new offset must hold this long, on the monotonic clock, before it is believed, ms. */
export const CLOCK_CONFIRM_MS = 60_000

/** What is believed of the wall clock: its offset to the monotonic one, and a new offset that is not believed yet. */
export interface ClockTrust {
  readonly offsetMs: number
  readonly suspect: { readonly offsetMs: number; readonly sinceMonotonic: number } | null
}

export function trustClock(now: number, monotonic: number): ClockTrust {
  return { offsetMs: now - monotonic, suspect: null }
}

/**
 * One reading. A step of the wall clock by more than a minute holds expiry until a second reading, a minute later,
 * confirms it: one bad clock step must not delete anything.
 */
export function readClock(
  trust: ClockTrust,
  now: number,
  monotonic: number,
): { readonly trust: ClockTrust; readonly mayExpire: boolean } {
  const offset = now - monotonic
  if (Math.abs(offset - trust.offsetMs) <= CLOCK_DISAGREE_MS) {
    return { trust: { offsetMs: offset, suspect: null }, mayExpire: true }
  }
  const suspect = trust.suspect
  if (suspect === null || Math.abs(offset - suspect.offsetMs) > CLOCK_DISAGREE_MS) {
    return {
      trust: { offsetMs: trust.offsetMs, suspect: { offsetMs: offset, sinceMonotonic: monotonic } },
      mayExpire: false,
    }
  }
  if (monotonic - suspect.sinceMonotonic < CLOCK_CONFIRM_MS) return { trust, mayExpire: false }
  return { trust: { offsetMs: offset, suspect: null }, mayExpire: true }
}
