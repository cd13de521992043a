import type { Engine, InstanceOrigin } from '../engines/engine.ts'
import type { InstanceFacts, VolumeFacts } from '../model/facts.ts'
import { LABEL, ownership } from '../model/labels.ts'

/** How long one look at an engine may take, ms; a list of everything takes longest. */
const LOOK_LIMIT_MS = 60_000

/** An instance with all that its engine tells of it. */
export interface FoundInstance {
  readonly facts: InstanceFacts
  readonly origin: InstanceOrigin
}

/** What an engine has of one installation, and the names of everything else that it mounts. */
export interface Contents {
  readonly instances: readonly FoundInstance[]
  /** Every volume of the engine, ours or not: an instance can mount somebody else's. */
  readonly volumes: readonly VolumeFacts[]
}

const owner = (o: InstanceFacts | VolumeFacts): string => o.labels[LABEL.installation] ?? ''

/** True for an object that proves by its own name that the labels are its own. */
export const isOwn = (o: InstanceFacts | VolumeFacts, installation: string): boolean =>
  ownership(o, installation) === 'ours'

/** Installations that the engine has objects of, with how many. */
export async function installationsOn(engine: Engine): Promise<ReadonlyMap<string, number>> {
  const call = { limitMs: LOOK_LIMIT_MS }
  const all = [...(await engine.listInstances(call)), ...(await engine.listVolumes(call))]
  const found = new Map<string, number>()
  for (const object of all) {
    const installation = owner(object)
    if (installation === '' || !isOwn(object, installation)) continue
    found.set(installation, (found.get(installation) ?? 0) + 1)
  }
  return found
}

/** Reads only; an instance that goes meanwhile is left out. */
export async function readContents(engine: Engine, installation: string): Promise<Contents> {
  const call = { limitMs: LOOK_LIMIT_MS }
  const volumes = await engine.listVolumes(call)
  const instances: FoundInstance[] = []
  for (const facts of await engine.listInstances(call)) {
    if (!isOwn(facts, installation)) continue
    const origin = await engine.describeInstance(facts.id, call)
    if (origin !== null) instances.push({ facts, origin })
  }
  return { instances, volumes }
}
