import type { Engine } from '../engines/engine.ts'
import type { Clock } from '../model/clock.ts'
import { fail } from '../model/errors.ts'
import type { Ids } from '../model/ids.ts'
import { NoShell, openLane, reason, type Lane } from './lane.ts'

export interface PoolLimits {
  /** Lanes of one instance, all users, working and idle; further commands use the engine's plain exec. */
  readonly maxLanes: number
  /** Lanes that are being opened at once per user: a burst of short commands is served by few lanes. */
  readonly maxOpening: number
  /** Idle lanes kept per user; each costs about 0.2 MiB in the instance. */
  readonly maxIdle: number
  /** An idle lane is closed after this. */
  readonly idleMs: number
  /** First wait before a held lane is asked again; doubles up to `probeMaxMs`. */
  readonly probeMs: number
  readonly probeMaxMs: number
  /** Commands that may wait for a lane, per instance. */
  readonly maxWaiting: number
}

export const POOL_LIMITS: PoolLimits = {
  maxLanes: 64,
  maxOpening: 4,
  maxIdle: 4,
  idleMs: 600_000,
  probeMs: 500,
  probeMaxMs: 60_000,
  maxWaiting: 1_024,
}

/** Why there is no lane for a command that could otherwise use one: it goes through the engine's plain exec. */
export type NoLane = 'no-shell' | 'full'

/** The least of a logger that is needed here; pino fits. Values never hold commands or environments. */
export interface GuestLog {
  warn(fields: object, message: string): void
}

export interface PoolOptions {
  readonly engine: Engine
  readonly engineId: string
  readonly mark: string
  readonly clock: Clock
  readonly ids: Ids
  readonly limits: PoolLimits
  readonly log: GuestLog | undefined
}

/** The lanes of one instance since one start. */
export interface Pool {
  /**
   * A lane for one command; nobody else uses it until it is idle again. `urgent` (signals) is served first and may
   * exceed the limit. Rejects with the engine's error when no lane can be opened.
   */
  take(user: string | undefined, urgent: boolean): Promise<Lane | NoLane>
  /** Returns a lane that was taken and not used. */
  giveBack(user: string | undefined, lane: Lane): void
  /** Opens a lane when there is none. */
  warm(user: string | undefined): void
  /** What a command without a lane may assume of the image. */
  readonly noShell: boolean
  /** No lane, nothing waiting: the pool can be dropped. */
  readonly empty: boolean
  /** Drops every lane: the instance is going away, or is gone. */
  destroy(why: string): void
  /** Ends idle lanes in order and lets go of the others. */
  close(): void
}

interface Waiter {
  readonly urgent: boolean
  readonly resolve: (lane: Lane | NoLane) => void
  readonly reject: (error: unknown) => void
}

interface Group {
  readonly user: string | undefined
  /** Most recently used last: the next command takes it, so surplus lanes grow old at the front. */
  readonly idle: Lane[]
  readonly waiting: Waiter[]
  opening: number
}

export function createPool(o: PoolOptions): Pool {
  const groups = new Map<string | undefined, Group>()
  const lanes = new Set<Lane>()
  /** Cancels what is scheduled for an idle or held lane. */
  const timers = new Map<Lane, () => void>()
  /** The wait before the next probe of a held lane, in ms. */
  const probes = new Map<Lane, number>()
  let noShell = false
  let gone: string | null = null

  const groupOf = (user: string | undefined): Group => {
    const found = groups.get(user)
    if (found !== undefined) return found
    const made: Group = { user, idle: [], waiting: [], opening: 0 }
    groups.set(user, made)
    return made
  }
  const count = (): number => lanes.size + sum(groups, (g) => g.opening)

  const schedule = (lane: Lane, ms: number, fn: () => void): void => {
    timers.get(lane)?.()
    timers.set(
      lane,
      o.clock.after(ms, () => {
        timers.delete(lane)
        fn()
      }),
    )
  }
  const unschedule = (lane: Lane): void => {
    timers.get(lane)?.()
    timers.delete(lane)
  }

  /** Hands idle lanes to who waits, and opens more for the rest. */
  const pump = (g: Group): void => {
    for (;;) {
      const next = g.waiting[0]
      if (next === undefined) return
      const lane = g.idle.pop()
      if (lane !== undefined) {
        g.waiting.shift()
        unschedule(lane)
        next.resolve(lane)
        continue
      }
      if (noShell) {
        g.waiting.shift()
        next.resolve('no-shell')
        continue
      }
      const urgent = next.urgent && g.opening === 0
      if (count() >= o.limits.maxLanes && !urgent) {
        if (g.opening > 0) return
        g.waiting.shift()
        next.resolve('full')
        continue
      }
      if (g.opening >= Math.min(o.limits.maxOpening, g.waiting.length)) return
      open(g)
    }
  }

  const open = (g: Group): void => {
    g.opening++
    openLane({ ...o, user: g.user, onState: (lane) => onState(g, lane) })
      .catch((error: unknown) => {
        if (error instanceof NoShell) noShell = true
        o.log?.warn({ instance: o.engineId, error: reason(error) }, 'no lane could be opened')
        // Every other waiter would meet the same instance, one limit after the other.
        if (!noShell) for (const waiter of g.waiting.splice(0)) waiter.reject(error)
      })
      .finally(() => {
        g.opening--
        pump(g)
      })
  }

  const onState = (g: Group, lane: Lane): void => {
    const known = lanes.has(lane)
    if (!known && lane.state !== 'ended') lanes.add(lane)
    const at = g.idle.indexOf(lane)
    if (at !== -1) g.idle.splice(at, 1)
    unschedule(lane)
    switch (lane.state) {
      case 'idle':
        probes.delete(lane)
        if (gone !== null) return lane.destroy(gone)
        g.idle.push(lane)
        schedule(lane, o.limits.idleMs, () => retire(g, lane))
        // Opening ends before its `finally` runs: the waiter is served now, and the count is right a moment later.
        pump(g)
        while (g.idle.length > o.limits.maxIdle) retire(g, g.idle[0] as Lane)
        return
      case 'held': {
        const wait = probes.get(lane) ?? o.limits.probeMs
        probes.set(lane, Math.min(wait * 2, o.limits.probeMaxMs))
        schedule(lane, wait, () => lane.probe())
        return
      }
      case 'ended':
        lanes.delete(lane)
        probes.delete(lane)
        pump(g)
        return
      case 'running':
      case 'leaving':
    }
  }

  /** An idle lane that is not needed: out of reach at once, then ended. */
  const retire = (g: Group, lane: Lane): void => {
    const at = g.idle.indexOf(lane)
    if (at === -1) return
    g.idle.splice(at, 1)
    unschedule(lane)
    lane.close()
  }

  const shut = (why: string, each: (lane: Lane) => void): void => {
    gone = why
    for (const cancel of timers.values()) cancel()
    timers.clear()
    for (const g of groups.values()) {
      g.idle.length = 0
      for (const waiter of g.waiting.splice(0)) waiter.reject(fail('SERVICE_UNAVAILABLE', { detail: why }))
    }
    for (const lane of lanes) each(lane)
  }

  return {
    take(user, urgent) {
      if (gone !== null) return Promise.reject(fail('SERVICE_UNAVAILABLE', { detail: gone }))
      if (sum(groups, (g) => g.waiting.length) >= o.limits.maxWaiting && !urgent)
        return Promise.reject(
          fail('SERVICE_UNAVAILABLE', {
            detail: `${o.limits.maxWaiting} commands wait for this instance already`,
          }),
        )
      const g = groupOf(user)
      return new Promise((resolve, reject) => {
        const waiter: Waiter = { urgent, resolve, reject }
        if (urgent) g.waiting.unshift(waiter)
        else g.waiting.push(waiter)
        pump(g)
      })
    },
    giveBack: (user, lane) => onState(groupOf(user), lane),
    warm(user) {
      const g = groupOf(user)
      if (gone === null && !noShell && g.idle.length + g.opening === 0 && count() < o.limits.maxLanes) open(g)
    },
    get noShell() {
      return noShell
    },
    get empty() {
      return !noShell && count() === 0 && sum(groups, (g) => g.waiting.length) === 0
    },
    destroy: (why) => shut(why, (lane) => lane.destroy(why)),
    close: () =>
      shut('the server is stopping', (lane) =>
        lane.state === 'idle' ? lane.close() : lane.destroy('the server is stopping'),
      ),
  }
}

function sum(groups: ReadonlyMap<unknown, Group>, of: (g: Group) => number): number {
  let total = 0
  for (const g of groups.values()) total += of(g)
  return total
}
