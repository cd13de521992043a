import type { Engine } from '../../engines/engine.ts'
import type { GuestTarget } from '../../guest/guest.ts'
import { fail } from '../../model/errors.ts'
import { EngineError } from '../../model/facts.ts'
import type { SandboxRecord } from '../../model/records.ts'
import { sandboxKey } from '../../reconcile/controller.ts'
import type { ApiDeps } from '../deps.ts'
import { fromEngine } from '../errors.ts'
import { mustFind } from '../intents/apply.ts'
import { engineOf } from '../routes/shared.ts'

type Deps = Pick<ApiDeps, 'store' | 'engines' | 'controller'>

/** An instance that the engine has, running or not. */
export interface Instance {
  readonly record: SandboxRecord
  readonly engine: Engine
  readonly engineId: string
  /** Has the sandbox looked at. */
  readonly kick: () => void
}

function notRunning(record: SandboxRecord): Error {
  return fail('SANDBOX::NOT_RUNNING', { id: record.id, state: record.status.phase })
}

/** The engine says otherwise than the row: the row is behind, and is being looked at. */
function gone(at: Instance): Error {
  if (at.record.status.phase !== 'Running') return notRunning(at.record)
  at.kick()
  return fail('SERVICE_UNAVAILABLE', {
    detail: `sandbox ${at.record.id} has just stopped running, and is being looked at`,
  })
}

/** The present instance, whether it runs or not; 409 while there is none. */
export async function instanceOf(deps: Deps, id: string): Promise<Instance> {
  const record = await deps.store.read((tx) => mustFind(tx, id))
  const engineId = record.instance?.engineId ?? null
  if (engineId === null || record.status.phase === 'Lost') throw notRunning(record)
  return {
    record,
    engine: engineOf(deps, record.engine),
    engineId,
    kick: () => deps.controller.kick(sandboxKey(id)),
  }
}

/** The running instance, by id and start time; 409 in every other phase. */
export async function targetOf(deps: Deps, id: string): Promise<Instance & { target: GuestTarget }> {
  const record = await deps.store.read((tx) => mustFind(tx, id))
  const { instance, status } = record
  if (
    status.phase !== 'Running' ||
    instance === null ||
    instance.engineId === null ||
    instance.startedAt === null
  ) {
    throw notRunning(record)
  }
  const engine = engineOf(deps, record.engine)
  const { engineId, startedAt } = instance
  const kick = (): void => deps.controller.kick(sandboxKey(id))
  return { record, engine, engineId, kick, target: { engine, sandbox: id, engineId, startedAt } }
}

/** An engine's refusal inside one sandbox: an instance that is gone is the sandbox's state, not the engine's failure. */
export function inSandbox(error: unknown, at: Instance, what: string): unknown {
  if (!(error instanceof EngineError)) return error
  if (error.kind === 'not-found' || error.kind === 'conflict') return gone(at)
  // The connection went while the command was on its way, as when the instance was stopped under it.
  if (error.kind === 'failed' && error.effect === 'unknown')
    return fail('LANE_LOST', { id: at.record.id, detail: error.message })
  return fromEngine(error, at.engine.id, what)
}
