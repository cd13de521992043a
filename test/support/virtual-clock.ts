import type { Clock } from '../../src/model/clock.ts'

export interface VirtualClock extends Clock {
  /** Moves time on and runs what falls due, in order, with everything it sets off settled in between. */
  advance(ms: number): Promise<void>
  /** Runs timer after timer until none is left. Fails when that takes more than `limitMs` of virtual time. */
  runUntilIdle(limitMs?: number): Promise<void>
  /** Runs timer after timer until the condition holds. Fails, naming it, after `limitMs` of virtual time. */
  runUntil(what: string, condition: () => boolean | Promise<boolean>, limitMs?: number): Promise<void>
  /** Wall time jumps, as by NTP or a suspended machine; `monotonic` and all timers stay. */
  jump(ms: number): void
  /** Lets promises and streams settle without moving time. */
  settle(): Promise<void>
  /** Runs the first timer there is; false when none is left. */
  next(): Promise<boolean>
  /** How many timers wait. */
  pending(): number
}

/** Turns of the event loop in which a chain of promises and stream events runs dry. */
const SETTLE_TURNS = 4
const DEFAULT_LIMIT_MS = 3_600_000

interface Timer {
  readonly at: number
  readonly order: number
  readonly fn: () => void
}

/** A clock on which nothing moves by itself. `start` is its wall time, milliseconds since the epoch. */
export function createVirtualClock(start: number = Date.UTC(2026, 0, 1)): VirtualClock {
  const timers = new Set<Timer>()
  let elapsed = 0
  let offset = start
  let order = 0

  const settle = async (): Promise<void> => {
    for (let i = 0; i < SETTLE_TURNS; i++) await new Promise<void>((resolve) => void setImmediate(resolve))
  }
  const first = (until: number): Timer | undefined => {
    let found: Timer | undefined
    for (const timer of timers) {
      if (timer.at > until) continue
      if (found === undefined || timer.at < found.at || (timer.at === found.at && timer.order < found.order))
        found = timer
    }
    return found
  }
  /** Runs the first timer due until then; false when there is none. */
  const step = async (until: number): Promise<boolean> => {
    const timer = first(until)
    if (timer === undefined) return false
    timers.delete(timer)
    elapsed = Math.max(elapsed, timer.at)
    timer.fn()
    await settle()
    return true
  }
  const runUntil: VirtualClock['runUntil'] = async (what, condition, limitMs = DEFAULT_LIMIT_MS) => {
    const end = elapsed + limitMs
    await settle()
    while (!(await condition())) {
      if (!(await step(end)))
        throw new Error(`${what}: not so after ${limitMs} ms of virtual time, ${timers.size} timers wait`)
    }
  }

  return {
    now: () => offset + elapsed,
    monotonic: () => elapsed,
    after(ms, fn) {
      const timer: Timer = { at: elapsed + Math.max(0, ms), order: (order += 1), fn }
      timers.add(timer)
      return () => void timers.delete(timer)
    },
    async advance(ms) {
      const end = elapsed + ms
      await settle()
      while (await step(end));
      elapsed = end
    },
    runUntil,
    runUntilIdle: (limitMs) => runUntil('no timer left', () => timers.size === 0, limitMs),
    jump: (ms) => void (offset += ms),
    settle,
    next: () => step(Number.POSITIVE_INFINITY),
    pending: () => timers.size,
  }
}
