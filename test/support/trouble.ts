import type { CallName, Fault, FaultPlan } from '../../src/engines/simulated/faults.ts'
import { OK } from '../../src/engines/simulated/faults.ts'
import type { SimContainer } from '../../src/engines/simulated/objects.ts'
import type { Decide } from '../../src/api/intents/lifecycle.ts'
import type { EngineErrorKind } from '../../src/model/facts.ts'
import type { SandboxRecord, VolumeRecord } from '../../src/model/records.ts'
import { specHash } from '../../src/model/spec.ts'
import type { ControlPlane } from './control-plane.ts'
import { spec } from './plan.ts'

/** What the tests of trouble share: wishes as the API records them, faults, and sure hands on the world. */

/** Records a wish as the API does. Throws what the API answers when it is refused. */
export function ask(cp: ControlPlane, id: string, decide: Decide): Promise<void> {
  return cp.change(id, (record) => decide(record, cp.clock.now())?.record ?? {})
}

/** One method fails without effect for as long as asked. */
export function failing(
  call: CallName,
  error: EngineErrorKind,
  still: () => boolean = () => true,
): FaultPlan {
  return { before: (name) => (name === call && still() ? { kind: 'error-before', error } : OK) }
}

/** The first call of one method suffers; later ones do not. */
export function first(call: CallName, fault: Fault): FaultPlan {
  let done = false
  return {
    before(name) {
      if (name !== call || done) return OK
      done = true
      return fault
    },
  }
}

/** A sandbox without volumes whose main process is a simulated program. */
export function job(...args: readonly string[]): Pick<SandboxRecord, 'spec' | 'specHash'> {
  const own = { ...spec, entrypoint: ['sim', ...args], mounts: [] }
  return { spec: own, specHash: specHash(own) }
}

/** How often the control plane asked the engine for this so far. */
export function calls(cp: ControlPlane, call: CallName): number {
  return cp.world.calls.get(call) ?? 0
}

/** The value, or a failure that names what was missing. */
export function sure<T>(value: T | null | undefined, what: string): T {
  if (value === null || value === undefined) throw new Error(`there is no ${what}`)
  return value
}

export function nameOf(record: SandboxRecord): string {
  return sure(record.instance, `instance of ${record.id}`).name
}

export function containerOf(cp: ControlPlane, record: SandboxRecord): SimContainer {
  return sure(cp.world.find(nameOf(record)), `container ${nameOf(record)}`)
}

export function running(cp: ControlPlane): readonly SimContainer[] {
  return [...cp.world.containers.values()].filter((c) => c.state === 'running')
}

/** The row of the first volume. */
export async function firstVolume(cp: ControlPlane): Promise<VolumeRecord> {
  return sure((await cp.volumes())[0], 'volume')
}

/** Long enough for every call limit, on which a stop waits. */
const STOP_LIMIT_MS = 120_000

/** Stops the control plane while time goes on, which the steps in hand need to come to their end. */
export async function end(cp: ControlPlane): Promise<void> {
  const stopped = cp.stop()
  await cp.clock.advance(STOP_LIMIT_MS)
  await stopped
}
