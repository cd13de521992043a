import { sleep } from '../../model/clock.ts'
import { EngineError, type InstanceFacts } from '../../model/facts.ts'
import { LABEL } from '../../model/labels.ts'
import type { Call, CreateInstance } from '../engine.ts'
import { type Api, budget } from './api.ts'
import { createBody } from './create.ts'
import { isAbout, isFullId, toFacts } from './facts.ts'
import { startError } from './failure.ts'
import type { FreezeGate } from './freeze-gate.ts'
import { mapBounded } from './limit.ts'
import type { RunReader } from './run.ts'
import { parseTime } from './time.ts'
import type { ContainerInspect } from './types.ts'

/** Inspects in flight for one list: enough to hide the round trip, few enough not to crowd out other calls. */
const LIST_WIDTH = 8
/** One look within a list, milliseconds: it takes one or two, and a hundred times that on a busy machine. */
const LOOK_LIMIT_MS = 10_000
/** Between looks at a container that somebody else removes, milliseconds. */
const REMOVAL_POLL_MS = 100

export interface Instances {
  readonly list: (call: Call) => Promise<readonly InstanceFacts[]>
  readonly inspect: (nameOrId: string, call: Call) => Promise<InstanceFacts | null>
  /** The engine's own words, for what facts do not tell. Null when confirmed absent. */
  readonly look: (nameOrId: string, call: Call) => Promise<ContainerInspect | null>
  readonly create: (request: CreateInstance, call: Call) => Promise<{ readonly id: string }>
  readonly start: (id: string, call: Call) => Promise<void>
  readonly stop: (id: string, graceMs: number, call: Call) => Promise<void>
  readonly pause: (id: string, call: Call) => Promise<void>
  readonly unpause: (id: string, call: Call) => Promise<void>
  readonly remove: (id: string, call: Call) => Promise<void>
}

const part = encodeURIComponent

export function createInstances(api: Api, runs: RunReader, gate: FreezeGate): Instances {
  const look = async (nameOrId: string, call: Call): Promise<ContainerInspect | null> => {
    const what = `inspecting instance ${nameOrId}`
    const answer = await api.ask({ what, method: 'GET', path: `/containers/${part(nameOrId)}/json`, call })
    if (answer.ok) {
      const found = answer.json as ContainerInspect
      return isAbout(found, nameOrId) ? found : null
    }
    // Only the engine's own words about this container confirm that it is absent.
    if (answer.refusal.status === 404 && /no such container/i.test(answer.refusal.message ?? '')) return null
    throw answer.error
  }

  /** One instance that the engine hangs on must not use up the time of the whole list, and is to be named. */
  const lookSoon = async (id: string, call: Call): Promise<ContainerInspect | null> => {
    try {
      return await look(id, { ...call, limitMs: Math.min(call.limitMs, LOOK_LIMIT_MS) })
    } catch (error) {
      if (!(error instanceof EngineError) || error.kind !== 'timeout') throw error
      throw new EngineError(
        'timeout',
        'none',
        `The engine answers, and hangs on instance ${id}: ${error.message}`,
        { cause: error },
      )
    }
  }

  const change = async (
    what: string,
    path: string,
    query: Record<string, string | number>,
    call: Call,
  ): Promise<void> => {
    await api.get({ what, method: 'POST', path, query, mutation: true, call })
  }

  return {
    look,

    async list(call) {
      const rest = budget(api.clock, call)
      const what = 'listing instances'
      const filters = JSON.stringify({ label: [LABEL.installation] })
      const { value, run } = await runs.during(rest, async () => {
        const rows = await api.get<readonly { Id: string }[]>({
          what,
          method: 'GET',
          path: '/containers/json',
          query: { all: true, filters },
          call: rest(),
        })
        return mapBounded(rows, LIST_WIDTH, (row) => lookSoon(row.Id, rest()))
      })
      return value.filter((found) => found !== null).map((found) => toFacts(what, found, run))
    },

    async inspect(nameOrId, call) {
      const rest = budget(api.clock, call)
      const { value, run } = await runs.during(rest, () => look(nameOrId, rest()))
      return value === null ? null : toFacts(`inspecting instance ${nameOrId}`, value, run)
    },

    async create(request, call) {
      const what = `creating instance ${request.name}`
      const answer = await api.ask({
        what,
        method: 'POST',
        path: '/containers/create',
        query: { name: request.name },
        json: createBody(request),
        mutation: true,
        call,
      })
      if (!answer.ok) {
        if (answer.refusal.status === 404 && /no such image/i.test(answer.refusal.message ?? ''))
          throw new EngineError('image-missing', 'none', answer.error.message)
        throw answer.error
      }
      const { Id: id } = answer.json as { Id?: string }
      if (id === undefined) throw new EngineError('failed', 'unknown', `${what}: the engine told no id`)
      return { id }
    },

    async start(id, call) {
      const what = `starting instance ${id}`
      const answer = await api.ask({
        what,
        method: 'POST',
        path: `/containers/${part(id)}/start`,
        mutation: true,
        call,
      })
      if (!answer.ok) throw startError(answer.refusal, answer.error)
    },

    stop: (id, graceMs, call) =>
      // The engine counts whole seconds; rounding down could make a grace none at all.
      change(
        `stopping instance ${id}`,
        `/containers/${part(id)}/stop`,
        { t: Math.ceil(graceMs / 1000) },
        call,
      ),

    async pause(id, call) {
      const rest = budget(api.clock, call)
      const what = `pausing instance ${id}`
      await gate.freezing(id, rest(), async () => {
        // The engine answers this only when no program is being started: others than we start some, too.
        await look(id, rest())
        const answer = await api.ask({
          what,
          method: 'POST',
          path: `/containers/${part(id)}/pause`,
          mutation: true,
          call: rest(),
        })
        if (!answer.ok && !/already paused/i.test(answer.refusal.message ?? '')) throw answer.error
      })
    },

    async unpause(id, call) {
      const what = `unpausing instance ${id}`
      const answer = await api.ask({
        what,
        method: 'POST',
        path: `/containers/${part(id)}/unpause`,
        mutation: true,
        call,
      })
      if (answer.ok) return
      // Docker answers 500 here, although it did nothing.
      if (/is not (paused|running)/i.test(answer.refusal.message ?? ''))
        throw new EngineError('conflict', 'none', answer.error.message)
      throw answer.error
    },

    remove: (id, call) => removeInstance(api, look, id, call),
  }
}

async function removeInstance(api: Api, look: Instances['look'], id: string, call: Call): Promise<void> {
  const what = `removing instance ${id}`
  // A name can be taken again by another container between the decision and the send; a full id never is.
  if (!isFullId(id)) throw new EngineError('invalid', 'none', `${what}: only a full engine id may be removed`)
  const rest = budget(api.clock, call)
  const found = await look(id, rest())
  if (found === null) return
  // Volumes without a name that the engine made for it hold nothing of anybody's as long as it never ran.
  const neverRan = parseTime(found.State.StartedAt) === null
  const answer = await api.ask({
    what,
    method: 'DELETE',
    path: `/containers/${id}`,
    query: { force: true, v: neverRan },
    mutation: true,
    call: rest(),
  })
  if (answer.ok || (answer.refusal.status === 404 && /no such container/i.test(answer.refusal.message ?? '')))
    return
  if (!/already in progress/i.test(answer.refusal.message ?? '')) throw answer.error
  // Somebody else removes it: done when it is gone, and not before. The limit of the call ends the wait.
  while ((await look(id, rest())) !== null) await sleep(api.clock, REMOVAL_POLL_MS, call.signal)
}
