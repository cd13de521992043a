import type { Clock } from '../../model/clock.ts'
import { EngineError } from '../../model/facts.ts'
import type { Call } from '../engine.ts'
import { orAfter } from './limit.ts'

/**
 * Keeps the start of an exec and the freeze of its instance apart. An engine that freezes an instance while a program
 * is being started in it freezes the half-made process as well; the start then never ends, keeps the engine's lock on
 * the instance, and every later look at it hangs, the thaw too (seen on Docker 20.10; only a thaw by hand helps).
 */
export interface FreezeGate {
  /** Runs the start of an exec; any number at once, none while the instance is being frozen. */
  starting<T>(id: string, call: Call, fn: () => Promise<T>): Promise<T>
  /** Runs a freeze, alone: after the starts that are under way, and before those that come later. */
  freezing<T>(id: string, call: Call, fn: () => Promise<T>): Promise<T>
}

interface Lane {
  starts: Set<Promise<unknown>>
  freeze: Promise<unknown> | null
}

export function createFreezeGate(clock: Clock): FreezeGate {
  const lanes = new Map<string, Lane>()
  const laneOf = (id: string): Lane => {
    const lane = lanes.get(id) ?? { starts: new Set(), freeze: null }
    lanes.set(id, lane)
    return lane
  }
  const tidy = (id: string, lane: Lane): void => {
    if (lane.starts.size === 0 && lane.freeze === null && lanes.get(id) === lane) lanes.delete(id)
  }
  /** Outcomes are their callers' business; here only the end counts. */
  const settled = (id: string, call: Call, work: Iterable<Promise<unknown>>): Promise<unknown> =>
    orAfter(
      clock,
      call.limitMs,
      Promise.allSettled(work),
      () =>
        new EngineError(
          'timeout',
          'none',
          `instance ${id} was busy with another start or pause for ${Math.round(call.limitMs)} ms`,
        ),
    )

  return {
    async starting(id, call, fn) {
      for (let lane = laneOf(id); lane.freeze !== null; lane = laneOf(id))
        await settled(id, call, [lane.freeze])
      const lane = laneOf(id)
      const work = fn()
      lane.starts.add(work)
      try {
        return await work
      } finally {
        lane.starts.delete(work)
        tidy(id, lane)
      }
    },

    async freezing(id, call, fn) {
      for (let lane = laneOf(id); lane.freeze !== null; lane = laneOf(id))
        await settled(id, call, [lane.freeze])
      const lane = laneOf(id)
      const before = [...lane.starts]
      const work = settled(id, call, before).then(fn)
      lane.freeze = work
      try {
        return await work
      } finally {
        lane.freeze = null
        tidy(id, lane)
      }
    },
  }
}
