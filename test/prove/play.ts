import type { Crashes, Plane } from './plane.ts'
import { planeFor, type Scenario } from './scenarios.ts'
import { createUser } from './user.ts'

/** How a scenario is played. */
export interface Style {
  readonly hurry: boolean
  readonly crashes: Crashes
  /** Faults are set here, before anything happens. They must come to an end by themselves. */
  readonly prepare?: (plane: Plane) => void
  /** Told when the scenario is over, and only coming right is left. */
  readonly over?: () => void
}

export interface Played {
  /** Counted points until the scenario and its recovery were over. */
  readonly points: number
  readonly crashed: readonly string[]
  /** What each point is. */
  readonly labels: readonly string[]
  readonly violations: readonly string[]
  /** Where everything ended, without what a crash may change: numbers of instances, ids of the engine. */
  readonly end: string
  /** What was really changed on the engine, by kind of call. */
  readonly effects: ReadonlyMap<string, number>
  /** Volumes that there ever were, by row. */
  readonly volumes: number
}

/** A call's time on its way, for users in a hurry: so that wishes fall between steps, ms. */
const LATENCY_MS = 40
/** After the last trouble all comes right within this: the longest call limit, doubt and backoff after few failures, ms. */
const COME_RIGHT_MS = 150_000
/** Ten full looks at the engine, each of which may change nothing, ms. */
const STILL_MS = 300_000

/** A full look takes no longer than this, ms. */
const WORK_MS = 2_000

/** Plays a scenario from beginning to end; nothing it finds is thrown. */
export async function play(scenario: Scenario, style: Style): Promise<Played> {
  const plane = planeFor(scenario, {
    seed: scenario.name,
    crashes: style.crashes,
    latencyMs: style.hurry ? LATENCY_MS : 0,
  })
  const violations: string[] = []
  standBy(plane)
  style.prepare?.(plane)
  try {
    await scenario.play(createUser(plane, style.hurry), plane)
  } catch (error) {
    violations.push(`the scenario did not come to its end: ${String(error)}`)
  }
  style.over?.()
  await plane.pass(COME_RIGHT_MS)
  const points = plane.points()
  plane.counting = false
  violations.push(...(await atRest(plane)), ...ends(plane, scenario))
  plane.crashNow()
  return {
    points,
    crashed: plane.crashed(),
    labels: plane.labels.slice(0, points),
    violations: [...plane.monitor.violations, ...violations],
    end: describe(plane),
    effects: plane.world.effects,
    volumes: plane.ledger.volumes.size,
  }
}

/** Objects of other people, some of which look much like ours. */
export function standBy(plane: Plane): void {
  plane.world.addImage('foreign')
  const labels = {
    'holdfast.dev/installation': 'inst00000000other',
    'holdfast.dev/uid': 'uid000000000other',
    'holdfast.dev/name': 'hf-other000000000-1',
    'holdfast.dev/kind': 'instance',
  }
  const one = plane.behind.createForeign({ name: 'hf-other000000000-1', image: 'foreign', labels })
  plane.behind.start(one.id)
  plane.behind.createForeign({ name: 'somebody', image: 'foreign' })
  plane.behind.createVolume('workspace', {}, { '/theirs': 'data' })
  plane.monitor.guardForeign()
}

/** With nothing going wrong any more: no change for ten full looks, no open step, rows and objects one to one. */
export async function atRest(plane: Plane, stillMs: number = STILL_MS): Promise<string[]> {
  const problems: string[] = []
  const before = plane.world.mutations()
  const seq = await plane.lastEventSeq()
  await plane.pass(stillMs)
  plane.monitor.check()
  if (plane.world.mutations() !== before)
    problems.push(`it is not still: ${plane.world.mutations() - before} changes`)
  if ((await plane.lastEventSeq()) !== seq) problems.push('it is not still: there are new events')
  problems.push(...plane.fatals.map((f) => `fatal: ${f}`))
  const life = await plane.alive()
  // A full look may just be under way.
  for (let ms = 0; ms < WORK_MS && !life.reconciler.idle; ms += WORK_MS / 10)
    await plane.clock.advance(WORK_MS / 10)
  for (const row of await life.store.read((tx) => tx.openSteps()))
    problems.push(`open step ${row.step.kind} of ${row.key}`)
  if (!life.reconciler.idle) problems.push('something is still being worked on')
  return problems
}

function ends(plane: Plane, scenario: Scenario): string[] {
  const problems: string[] = []
  // In the order in which they were committed: the wall clock may have stepped back in between.
  const sandboxes = [...plane.ledger.sandboxes.values()]
  const phases = sandboxes.map((s) => s.status.phase)
  if (phases.join() !== scenario.ends.join())
    problems.push(`it ends as ${phases.join()} and not as ${scenario.ends.join()}`)
  for (const s of sandboxes)
    if (s.observedGeneration !== s.generation)
      problems.push(`${s.id} shows generation ${s.observedGeneration} of ${s.generation}`)
  problems.push(...leftovers(plane))
  return problems
}

/** What is on the engine and not in the rows, or in the rows and not on the engine. */
export function leftovers(plane: Plane): string[] {
  const problems: string[] = []
  const sandboxes = [...plane.ledger.sandboxes.values()]
  const instances = new Set(sandboxes.flatMap((s) => (s.instance === null ? [] : [s.instance.name])))
  const volumes = [...plane.ledger.volumes.values()].filter((v) => v.state !== 'removed')
  const names = new Set(volumes.map((v) => v.physicalName))
  for (const c of plane.world.containers.values())
    if (!instances.has(c.name) && !plane.monitor.isForeign(`container ${c.name}`))
      problems.push(`leaked instance ${c.name}`)
  for (const name of plane.world.volumes.keys()) {
    // What others removed and is there again is theirs to judge: it has to be told, and stays.
    const told = plane.monitor.wasTaken(name) && plane.ledger.quarantine.has(`volume ${name}`)
    if (!told && !names.has(name) && !plane.monitor.isForeign(`volume ${name}`))
      problems.push(`leaked volume ${name}`)
  }
  for (const name of names) if (!plane.world.volumes.has(name)) problems.push(`missing volume ${name}`)
  for (const v of volumes) if (v.discarded.length > 0) problems.push(`${v.physicalName} has discarded makes`)
  return problems
}

/** The end as it has to be with and without crashes. */
function describe(plane: Plane): string {
  const text = JSON.stringify({
    sandboxes: [...plane.ledger.sandboxes.values()].map((s) => [
      s.status.phase,
      s.desired,
      s.specHash,
      s.metadata,
      s.instance !== null,
      s.spec.mounts.length,
    ]),
    volumes: [...plane.ledger.volumes.values()]
      .toSorted((a, b) => (a.claim < b.claim ? -1 : 1))
      .map((v) => [v.claim, v.state, v.seed, v.retention, v.purge?.by]),
    containers: [...plane.world.containers.values()].map((c) => [
      c.name,
      c.request.image,
      c.state,
      c.paused,
      c.request.env,
    ]),
  })
  // What a user has no say in: ids, and how often an instance or a volume was made.
  const ids = [...plane.ledger.sandboxes.keys(), ...plane.ledger.volumes.keys()]
  return ids
    .reduce((out, id, n) => out.replaceAll(id, `#${n}`), text)
    .replaceAll(/(hf-#\d+)-\d+/g, '$1')
    .replaceAll(/v1-[0-9a-f]+/g, 'hash')
}
