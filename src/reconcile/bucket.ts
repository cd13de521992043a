import { sleep, type Clock } from '../model/clock.ts'

/** A token bucket on an injected clock. `take` resolves when the caller may go on; callers are served in order. */
export function createBucket(clock: Clock, perSecond: number, burst: number): { take(): Promise<void> } {
  let tokens = burst
  let last = clock.monotonic()
  let chain: Promise<void> = Promise.resolve()

  function refill(): void {
    const now = clock.monotonic()
    tokens = Math.min(burst, tokens + ((now - last) / 1000) * perSecond)
    last = now
  }

  async function one(): Promise<void> {
    refill()
    if (tokens < 1) {
      await sleep(clock, Math.ceil(((1 - tokens) / perSecond) * 1000))
      refill()
    }
    tokens -= 1
  }

  return {
    take() {
      chain = chain.then(one)
      return chain
    },
  }
}
