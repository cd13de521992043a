import { expect, it } from 'vitest'
import { createControlPlane, type ControlPlane } from '../support/control-plane.ts'

/**
 * A crash at every counted point of each scenario, then a restart: the acknowledged state is reached, nothing is
 * restarted that a crash alone touched, and in the end rows and engine objects are one to one.
 */
interface Scenario {
  readonly name: string
  readonly run: (cp: ControlPlane, id: string) => Promise<void>
  /** What must hold once everything has converged. */
  readonly phase: 'Running' | 'Stopped' | 'Paused' | 'Terminated'
  readonly policy?: 'always'
}

/** One wish after the other: time for the step in hand, not for the whole way, so that crashes fall in between too. */
const tick = (cp: ControlPlane): Promise<void> => cp.clock.advance(3_000)

const SCENARIOS: readonly Scenario[] = [
  { name: 'create', phase: 'Running', run: async () => undefined },
  {
    name: 'create, stop, start',
    phase: 'Running',
    run: async (cp, id) => {
      await cp.want(id, 'stopped')
      await tick(cp)
      await cp.want(id, 'running')
    },
  },
  { name: 'create, stop', phase: 'Stopped', run: (cp, id) => cp.want(id, 'stopped') },
  { name: 'create, pause', phase: 'Paused', run: (cp, id) => cp.want(id, 'paused') },
  {
    name: 'create, update',
    phase: 'Running',
    run: (cp, id) => cp.change(id, (r) => ({ specHash: 'v1-other', generation: r.generation + 1 })),
  },
  {
    name: 'create, restart',
    phase: 'Running',
    run: (cp, id) => cp.change(id, (r) => ({ restartSeq: r.restartSeq + 1 })),
  },
  { name: 'create, delete', phase: 'Terminated', run: (cp, id) => cp.want(id, 'deleted') },
  {
    name: 'create, removed behind its back, recovered by policy',
    phase: 'Running',
    policy: 'always',
    run: async (cp, id) => {
      const name = (await cp.get(id)).instance?.name
      if (name !== undefined && cp.world.find(name) !== null) cp.behind.remove(name)
    },
  },
]

async function play(scenario: Scenario, crashAt: number): Promise<ControlPlane> {
  const cp = createControlPlane({ seed: `${scenario.name}/${crashAt}` })
  cp.crashAt = crashAt
  await cp.start()
  const id = await cp.add(scenario.policy === 'always' ? { restartPolicy: { kind: 'always' } } : {})
  await tick(cp)
  if (crashAt > 0 && cp.points >= crashAt) await cp.restart()
  const died = cp.points >= crashAt
  await tick(cp)
  await scenario.run(cp, id)
  await tick(cp)
  if (crashAt > 0 && !died && cp.points >= crashAt) await cp.restart()
  await cp.converge()

  const record = await cp.get(id)
  expect(record.status.phase, record.status.message).toBe(scenario.phase)
  expect(record.observedGeneration).toBe(record.generation)
  expect(await cp.openSteps()).toBe(0)
  const gone = scenario.phase === 'Terminated'
  expect([...cp.world.containers.values()].map((c) => c.name)).toEqual(gone ? [] : [record.instance?.name])
  const rows = (await cp.volumes()).filter((v) => v.state !== 'removed')
  expect([...cp.world.volumes.keys()]).toEqual(rows.map((v) => v.physicalName))
  for (const v of rows) {
    expect(v).toMatchObject({ state: 'ready', seed: 'seeded', discarded: [] })
    expect(cp.world.volumeContent(v.physicalName)).toEqual({ '/seed.txt': 'seeded' })
  }
  const before = cp.world.mutations()
  await cp.converge()
  expect(cp.world.mutations(), 'stays still').toBe(before)
  return cp
}

it.each(SCENARIOS.map((s) => [s.name, s] as const))('%s: a crash at every point', async (_name, scenario) => {
  const clean = await play(scenario, 0)
  const points = clean.points
  await clean.stop()
  expect(points).toBeGreaterThan(4)
  for (let k = 1; k <= points; k++) {
    try {
      const cp = await play(scenario, k)
      expect(cp.points).toBeGreaterThanOrEqual(k)
      await cp.stop()
    } catch (error) {
      throw new Error(`${scenario.name}: crash at point ${k} of ${points}`, { cause: error })
    }
  }
})
