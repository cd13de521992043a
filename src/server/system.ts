import { randomBytes, randomInt } from 'node:crypto'
import type { Clock } from '../model/clock.ts'
import { idFromBytes, type Ids } from '../model/ids.ts'

export function systemClock(): Clock {
  return {
    now: () => Date.now(),
    monotonic: () => performance.now(),
    after(ms, fn) {
      // Node's timers hold at most 2^31-1 ms; a later wake-up looks again.
      const timer = setTimeout(fn, Math.min(Math.max(0, ms), 2_147_483_647))
      timer.unref()
      return () => clearTimeout(timer)
    },
  }
}

export function systemIds(): Ids {
  return {
    next: () => idFromBytes(randomBytes(16)),
    secret: () => randomBytes(32).toString('base64url'),
    random: () => randomInt(2 ** 32) / 2 ** 32,
  }
}
