import type { Clock } from '../model/clock.ts'
import { fail } from '../model/errors.ts'
import type { Ids } from '../model/ids.ts'
import { runInLane, runRaw, type CommandContext } from './command.ts'
import type { CommandRequest, Guest, GuestTarget } from './guest.ts'
import type { Lane } from './lane.ts'
import { createPool, POOL_LIMITS, type NoLane, type GuestLog, type Pool, type PoolLimits } from './pool.ts'
import { checkCommand, markValue, shellCanExport } from './script.ts'

export { reapStale, type Reaped } from './reap.ts'

export interface GuestOptions {
  readonly clock: Clock
  readonly ids: Ids
  /** The control plane's epoch: what tells its lanes from those that an earlier one left (`reapStale`). */
  readonly epoch: number
  readonly logger?: GuestLog
  readonly limits?: Partial<PoolLimits>
}

/** Lanes that died between being handed out and used, before the error is told. */
const LANE_TRIES = 3

/**
 * Commands over lanes where the image has a shell, and over the engine's plain exec for terminals, images without
 * one, names that no shell can export, and whatever exceeds the limit of lanes.
 *
 * `run` rejects with `HoldfastError` (the request), `EngineError` (nothing could be started).
 */
export function createGuest(o: GuestOptions): Guest {
  const limits = { ...POOL_LIMITS, ...o.limits }
  const pools = new Map<string, { readonly target: GuestTarget; readonly pool: Pool }>()
  let closed = false

  const drop = (gone: (target: GuestTarget) => boolean, why: string): void => {
    for (const [key, { target, pool }] of pools) {
      // An empty pool may still serve the signals of a plain exec: it is let go of, not shut.
      if (pool.empty) pools.delete(key)
      else if (gone(target)) {
        pools.delete(key)
        pool.destroy(why)
      }
    }
  }
  const poolOf = (target: GuestTarget): Pool => {
    if (closed) throw fail('SERVICE_UNAVAILABLE', { detail: 'the server is stopping' })
    const { engine, engineId } = target
    const key = `${engine.id}/${engineId}/${target.startedAt}`
    const found = pools.get(key)
    if (found !== undefined) return found.pool
    const sameInstance = (t: GuestTarget): boolean => t.engine.id === engine.id && t.engineId === engineId
    drop((t) => sameInstance(t) && t.startedAt < target.startedAt, 'the instance was started anew')
    const mark = markValue(target.sandbox, o.epoch)
    const pool = createPool({ engine, engineId, mark, clock: o.clock, ids: o.ids, limits, log: o.logger })
    pools.set(key, { target, pool })
    return pool
  }

  return {
    async run(target, request) {
      checkCommand(request)
      const c: CommandContext = {
        clock: o.clock,
        ids: o.ids,
        target,
        pool: poolOf(target),
        mark: markValue(target.sandbox, o.epoch),
      }
      const lane = await chooseLane(c, request)
      return typeof lane === 'string' ? runRaw(c, request, lane) : runInLane(c, request, lane)
    },
    warm(target) {
      if (!closed && target.engine.capabilities.lanes) poolOf(target).warm(undefined)
    },
    forget(engineId) {
      drop((target) => target.engineId === engineId, 'the instance is being stopped')
    },
    close() {
      closed = true
      for (const { pool } of pools.values()) pool.close()
      pools.clear()
      return Promise.resolve()
    },
  }
}

/** `no-shell`: only the plain exec, and no signals. `full`: the plain exec, with a shell around it. */
async function chooseLane(c: CommandContext, request: CommandRequest): Promise<Lane | NoLane> {
  if (!c.target.engine.capabilities.lanes) return 'full'
  if (c.pool.noShell) return 'no-shell'
  if (request.tty !== undefined || !shellCanExport(request.env)) {
    // Whether the image has a shell must be known before one is wrapped around the command.
    const lane = await c.pool.take(request.user, false)
    if (typeof lane === 'string') return lane
    c.pool.giveBack(request.user, lane)
    return 'full'
  }
  for (let tries = 1; ; tries++) {
    const lane = await c.pool.take(request.user, false)
    if (typeof lane === 'string' || lane.state === 'idle' || tries === LANE_TRIES) return lane
  }
}
