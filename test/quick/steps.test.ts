import { expect, it } from 'vitest'
import { createBehind, type Behind } from '../../src/engines/simulated/behind.ts'
import { createSimulatedEngine, type SimulatedEngine } from '../../src/engines/simulated/engine.ts'
import { createWorld, type World } from '../../src/engines/simulated/world.ts'
import { labelsFor } from '../../src/model/labels.ts'
import type { Step } from '../../src/model/records.ts'
import { executeStep, type StepInput, type StepOutcome } from '../../src/reconcile/steps.ts'
import { INSTALLATION } from '../support/plan.ts'
import { createVirtualClock } from '../support/virtual-clock.ts'

/** What a removal looks at right before it acts: the journal may be older than what is on the engine by now. */

const NAME = 'hf-one-1'
const UID = 'instance00000000'
const VOLUME = 'workspace-volume0000000000'
const VOLUME_UID = 'volume0000000000'

interface Bench {
  readonly world: World
  readonly behind: Behind
  readonly engine: SimulatedEngine
  readonly take: (step: Step) => Promise<StepOutcome>
}

function bench(): Bench {
  const clock = createVirtualClock()
  const world = createWorld({ clock, seed: 'steps', images: { img: {} } })
  const engine = createSimulatedEngine(world, { id: 'sim' })
  const input: StepInput = {
    engine,
    installation: INSTALLATION,
    endpoint: '',
    sandbox: null,
    volumes: [],
    progress: () => undefined,
  }
  return {
    world,
    behind: createBehind(world),
    engine,
    take: (step) => executeStep(step, input, { limitMs: 1_000 }),
  }
}

const labels = (uid: string): Record<string, string> =>
  labelsFor({ installation: INSTALLATION, uid, name: NAME, kind: 'instance' })
const volumeLabels = (uid: string): Record<string, string> =>
  labelsFor({ installation: INSTALLATION, uid, name: VOLUME, kind: 'volume' })
const removal = (engineId: string): Step => ({
  kind: 'remove-instance',
  name: NAME,
  uid: UID,
  engineId,
  why: 'test',
})
const purge: Step = { kind: 'remove-volume', name: VOLUME, uid: VOLUME_UID, why: 'test' }

it('a removal goes by the engine’s id: another object under our very name and labels stays', async () => {
  const { world, behind, take } = bench()
  const ours = behind.createForeign({ name: NAME, image: 'img', labels: labels(UID) })
  behind.remove(ours.id)
  const theirs = behind.createForeign({ name: NAME, image: 'img', labels: labels(UID) })
  expect(await take(removal(ours.id))).toMatchObject({ text: 'was gone' })
  expect([...world.containers.keys()]).toEqual([theirs.id])
})

it('nothing is removed whose uid is another one', async () => {
  const { world, behind, take } = bench()
  const theirs = behind.createForeign({ name: NAME, image: 'img', labels: labels('somebody00000000') })
  await expect(take(removal(theirs.id))).rejects.toMatchObject({ kind: 'conflict', effect: 'none' })
  behind.createVolume(VOLUME, volumeLabels('somebody00000000'))
  await expect(take(purge)).rejects.toMatchObject({ kind: 'conflict', effect: 'none' })
  expect([world.containers.size, world.volumes.size]).toEqual([1, 1])
})

it('a volume is removed only while it carries our labels', async () => {
  const { world, behind, take } = bench()
  behind.createVolume(VOLUME, {}, { '/theirs': 'data' })
  await expect(take(purge)).rejects.toMatchObject({ kind: 'conflict', effect: 'none' })
  expect(world.volumeContent(VOLUME)).toEqual({ '/theirs': 'data' })
  behind.removeVolume(VOLUME)
  behind.createVolume(VOLUME, volumeLabels(VOLUME_UID))
  expect(await take(purge)).toMatchObject({ text: 'removed' })
  expect(world.volumes.size).toBe(0)
})
