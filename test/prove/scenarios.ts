import * as life from '../../src/api/intents/lifecycle.ts'
import { setMetadata } from '../../src/api/intents/lifecycle.ts'
import { LABEL } from '../../src/model/labels.ts'
import { update } from '../../src/api/intents/update.ts'
import type { ImageDraft } from '../../src/engines/simulated/world.ts'
import { createPlane, type Plane, type PlaneOptions } from './plane.ts'
import { claim, type User } from './user.ts'

/** What a user, and sometimes somebody else, does; what must come of it is what comes of it when nothing goes wrong. */
export interface Scenario {
  readonly name: string
  /** May also be played without waiting for one thing before the next is asked for. */
  readonly hasty: boolean
  /** Small enough that every pair of crashes is tried. */
  readonly pairs: boolean
  readonly images?: Readonly<Record<string, ImageDraft>>
  readonly registry?: Readonly<Record<string, ImageDraft>>
  /** The phases of all sandboxes in the end, in order of their creation. */
  readonly ends: readonly string[]
  readonly play: (user: User, plane: Plane) => Promise<void>
}

const IMG: ImageDraft = { files: { '/sandbox/seed.txt': 'seeded' } }
const BOTH = { img: IMG, other: { files: { '/sandbox/seed.txt': 'other', '/tool': 'new' } } }
const DECLARES = { img: { ...IMG, volumes: ['/var/lib/data'] } }
const MINUTE_MS = 60_000

const running = (user: User, id: string): Promise<void> => user.until(id, 'Running')
const stopped = (user: User, id: string): Promise<void> => user.until(id, 'Stopped')

/** A running sandbox, or one that was only just asked for. */
async function up(user: User, change: Parameters<User['create']>[0] = {}): Promise<string> {
  const id = await user.create(change)
  await running(user, id)
  return id
}

/** What the engine does to everybody's instances is not ours. */
function engine(plane: Plane, act: (behind: Plane['behind']) => void): void {
  act(plane.behind)
  plane.monitor.guardForeign()
}

export const SCENARIOS: readonly Scenario[] = [
  { name: 'create', hasty: true, pairs: true, ends: ['Running'], play: async (u) => void (await up(u)) },
  {
    name: 'create without a volume',
    hasty: true,
    pairs: true,
    ends: ['Running'],
    play: async (u) => void (await up(u, { workspace: false })),
  },
  {
    name: 'create with a claim, delete',
    hasty: true,
    pairs: false,
    ends: ['Terminated'],
    async play(u) {
      const id = await up(u, { mounts: [claim('data')] })
      await u.ask(id, life.remove)
      await u.until(id, 'Terminated')
    },
  },
  {
    name: 'create with a claim that goes with its owner, delete',
    hasty: true,
    pairs: false,
    ends: ['Terminated'],
    async play(u) {
      const id = await up(u, { workspace: false, mounts: [claim('data', { deleteWithOwner: true })] })
      await u.ask(id, life.remove)
      await u.until(id, 'Terminated')
    },
  },
  {
    name: 'create with an image that has to be pulled',
    hasty: true,
    pairs: true,
    images: {},
    registry: { img: IMG },
    ends: ['Running'],
    play: async (u) => void (await up(u)),
  },
  {
    name: 'create with an image that declares a volume, delete',
    hasty: true,
    pairs: false,
    images: DECLARES,
    ends: ['Terminated'],
    async play(u) {
      const id = await up(u)
      await u.ask(id, life.remove)
      await u.until(id, 'Terminated')
    },
  },
  {
    name: 'create with an image that is missing until somebody pushes it',
    hasty: false,
    pairs: false,
    images: {},
    ends: ['Running'],
    async play(u, plane) {
      const id = await u.create()
      await u.until(id, 'Blocked')
      plane.world.addImage('img', IMG, 'registry')
      await running(u, id)
    },
  },
  {
    name: 'create under a name that a foreign container has, until that is gone',
    hasty: false,
    pairs: false,
    ends: ['Running'],
    async play(u, plane) {
      const id = await up(u)
      await u.ask(id, life.stop)
      await stopped(u, id)
      const taken = `hf-${id}-2`
      plane.behind.createForeign({ name: taken, image: 'img' })
      plane.monitor.guardForeign()
      await u.ask(id, update({ env: { A: '1' } }))
      await u.ask(id, life.start)
      await u.until(id, 'Blocked')
      await u.pass(MINUTE_MS)
      plane.monitor.check()
      plane.monitor.release(taken)
      plane.behind.remove(taken)
      await running(u, id)
    },
  },
  {
    name: 'stop',
    hasty: true,
    pairs: true,
    ends: ['Stopped'],
    async play(u) {
      const id = await up(u)
      await u.ask(id, life.stop)
      await stopped(u, id)
    },
  },
  {
    name: 'stop, start',
    hasty: true,
    pairs: true,
    ends: ['Running'],
    async play(u) {
      const id = await up(u)
      await u.ask(id, life.stop)
      await stopped(u, id)
      await u.ask(id, life.start)
      await running(u, id)
    },
  },
  {
    name: 'stop of one that does not listen',
    hasty: false,
    pairs: false,
    ends: ['Stopped'],
    async play(u) {
      const id = await up(u, { entrypoint: ['sim', 'ignore-term'] })
      await u.ask(id, life.stop)
      await stopped(u, id)
    },
  },
  {
    name: 'restart',
    hasty: true,
    pairs: true,
    ends: ['Running'],
    async play(u) {
      const id = await up(u)
      await u.ask(id, life.restart)
      await u.breathe()
      await running(u, id)
    },
  },
  {
    name: 'pause',
    hasty: true,
    pairs: true,
    ends: ['Paused'],
    async play(u) {
      const id = await up(u)
      await u.ask(id, life.pause)
      await u.until(id, 'Paused')
    },
  },
  {
    name: 'pause, resume',
    hasty: true,
    pairs: true,
    ends: ['Running'],
    async play(u) {
      const id = await up(u)
      await u.ask(id, life.pause)
      await u.until(id, 'Paused')
      await u.ask(id, life.resume)
      await running(u, id)
    },
  },
  {
    name: 'pause, stop',
    hasty: true,
    pairs: false,
    ends: ['Stopped'],
    async play(u) {
      const id = await up(u)
      await u.ask(id, life.pause)
      await u.until(id, 'Paused')
      await u.ask(id, life.stop)
      await stopped(u, id)
    },
  },
  {
    name: 'pause, delete',
    hasty: true,
    pairs: false,
    ends: ['Terminated'],
    async play(u) {
      const id = await up(u)
      await u.ask(id, life.pause)
      await u.until(id, 'Paused')
      await u.ask(id, life.remove)
      await u.until(id, 'Terminated')
    },
  },
  {
    name: 'update of the environment',
    hasty: true,
    pairs: true,
    ends: ['Running'],
    async play(u) {
      const id = await up(u)
      await u.ask(id, update({ env: { A: '1' } }))
      await u.breathe()
      await running(u, id)
    },
  },
  {
    name: 'update of the image, twice',
    hasty: true,
    pairs: false,
    images: BOTH,
    ends: ['Running'],
    async play(u) {
      const id = await up(u)
      await u.ask(id, update({ image: { uri: 'other' } }))
      await u.breathe()
      await u.ask(id, update({ image: { uri: 'img' } }))
      await u.breathe()
      await running(u, id)
    },
  },
  {
    name: 'update while stopped, start',
    hasty: true,
    pairs: false,
    ends: ['Running'],
    async play(u) {
      const id = await up(u)
      await u.ask(id, life.stop)
      await stopped(u, id)
      await u.ask(id, update({ env: { A: '1' } }))
      await u.ask(id, life.start)
      await running(u, id)
    },
  },
  {
    name: 'new metadata, recover of one that runs',
    hasty: true,
    pairs: false,
    ends: ['Running'],
    async play(u) {
      const id = await up(u)
      await u.ask(id, setMetadata({ team: 'a' }))
      await u.ask(id, life.recover)
      await u.breathe()
      await running(u, id)
    },
  },
  {
    name: 'delete',
    hasty: true,
    pairs: true,
    ends: ['Terminated'],
    async play(u) {
      const id = await up(u)
      await u.ask(id, life.remove)
      await u.until(id, 'Terminated')
    },
  },
  {
    name: 'stop, delete',
    hasty: true,
    pairs: false,
    ends: ['Terminated'],
    async play(u) {
      const id = await up(u)
      await u.ask(id, life.stop)
      await stopped(u, id)
      await u.ask(id, life.remove)
      await u.until(id, 'Terminated')
    },
  },
  {
    name: 'expiry',
    hasty: false,
    pairs: true,
    ends: ['Terminated'],
    async play(u) {
      const id = await up(u, { timeoutMs: MINUTE_MS })
      await u.pass(MINUTE_MS)
      await u.until(id, 'Terminated')
    },
  },
  {
    name: 'renewal, and its expiry',
    hasty: false,
    pairs: false,
    ends: ['Terminated'],
    async play(u) {
      const id = await up(u, { timeoutMs: 10 * MINUTE_MS })
      const renewed = (u.get(id).expiresAt ?? 0) + MINUTE_MS
      await u.ask(id, life.renew(renewed))
      await u.pass(11 * MINUTE_MS)
      await u.until(id, 'Terminated')
    },
  },
  {
    name: 'renewal while it is stopped',
    hasty: false,
    pairs: false,
    ends: ['Stopped'],
    async play(u) {
      const id = await up(u, { timeoutMs: 30 * MINUTE_MS })
      await u.ask(id, life.stop)
      await stopped(u, id)
      const renewed = (u.get(id).expiresAt ?? 0) + 600 * MINUTE_MS
      await u.ask(id, life.renew(renewed))
      await u.pass(31 * MINUTE_MS)
    },
  },
  {
    name: 'removed behind its back, recover',
    hasty: false,
    pairs: true,
    ends: ['Running'],
    async play(u) {
      const id = await up(u)
      await u.behind((b, name) => b.remove(name), id)
      await u.until(id, 'Lost')
      await u.ask(id, life.recover)
      await running(u, id)
    },
  },
  {
    name: 'removed behind its back, delete',
    hasty: false,
    pairs: false,
    ends: ['Terminated'],
    async play(u) {
      const id = await up(u)
      await u.behind((b, name) => b.remove(name), id)
      await u.until(id, 'Lost')
      await u.ask(id, life.remove)
      await u.until(id, 'Terminated')
    },
  },
  {
    name: 'removed behind its back, policy always',
    hasty: false,
    pairs: true,
    ends: ['Running'],
    async play(u) {
      const id = await up(u, { restartPolicy: { kind: 'always' } })
      await u.behind((b, name) => b.remove(name), id)
      await u.pass(MINUTE_MS)
      await running(u, id)
    },
  },
  {
    name: 'killed behind its back, start',
    hasty: false,
    pairs: true,
    ends: ['Running'],
    async play(u) {
      const id = await up(u)
      // A start that was sent before a crash may land first: one that lands after the kill starts it again.
      await u.breathe()
      await u.behind((b, name) => b.kill(name), id)
      await stopped(u, id)
      await u.ask(id, life.start)
      await running(u, id)
    },
  },
  {
    name: 'a workload that fails, policy on-failure',
    hasty: false,
    pairs: false,
    ends: ['Stopped'],
    async play(u) {
      const id = await u.create({
        entrypoint: ['sim', 'exit', '3', 'after', '2000'],
        restartPolicy: { kind: 'on-failure', max: 2 },
      })
      await stopped(u, id)
    },
  },
  {
    name: 'a workload that fails again and again, until it is mended',
    hasty: false,
    pairs: false,
    ends: ['Running'],
    async play(u) {
      const id = await u.create({
        entrypoint: ['sim', 'exit', '1', 'after', '50'],
        restartPolicy: { kind: 'always' },
      })
      await u.until(id, 'Failed')
      await u.ask(id, update({ entrypoint: ['sim', 'run'] }))
      await running(u, id)
      // A start that lasts closes what the failures opened.
      await u.pass(3 * MINUTE_MS)
    },
  },
  {
    name: 'a program that is not there, until it is named right',
    hasty: false,
    pairs: false,
    ends: ['Running'],
    async play(u) {
      const id = await u.create({ entrypoint: ['sim', 'nothing'] })
      await u.until(id, 'Failed')
      await u.ask(id, update({ entrypoint: ['sim', 'run'] }))
      await running(u, id)
    },
  },
  {
    name: 'a delete of one that cannot be started',
    hasty: false,
    pairs: false,
    ends: ['Terminated'],
    async play(u) {
      const id = await u.create({ entrypoint: ['sim', 'nothing'] })
      await u.until(id, 'Failed')
      await u.ask(id, life.remove)
      await u.until(id, 'Terminated')
    },
  },
  {
    name: 'a workload that is done',
    hasty: false,
    pairs: false,
    ends: ['Stopped'],
    async play(u) {
      const id = await u.create({ entrypoint: ['sim', 'exit', '0', 'after', '2000'] })
      await stopped(u, id)
    },
  },
  {
    name: 'the engine loses power',
    hasty: false,
    pairs: true,
    ends: ['Running'],
    async play(u, plane) {
      const id = await up(u)
      engine(plane, (b) => b.cutPower())
      await u.pass(20_000)
      engine(plane, (b) => b.startDaemon())
      await u.pass(30_000)
      await running(u, id)
    },
  },
  {
    name: 'the engine is killed, and its instances outlive it',
    hasty: false,
    pairs: false,
    ends: ['Running'],
    async play(u, plane) {
      const id = await up(u)
      engine(plane, (b) => b.killDaemon())
      await u.pass(20_000)
      engine(plane, (b) => b.startDaemon({ liveRestore: true }))
      await u.pass(30_000)
      await running(u, id)
    },
  },
  {
    name: 'the engine forgets its instances, recover',
    hasty: false,
    pairs: false,
    ends: ['Running'],
    async play(u, plane) {
      const id = await up(u)
      engine(plane, (b) => b.forgetContainers())
      await u.until(id, 'Lost')
      await u.ask(id, life.recover)
      await running(u, id)
    },
  },
  {
    name: 'an instance that the engine cannot end until it is started anew',
    hasty: false,
    pairs: false,
    ends: ['Stopped'],
    async play(u, plane) {
      const id = await up(u)
      await u.behind((b, name) => b.makeZombie(name), id)
      await u.ask(id, life.stop)
      await u.pass(MINUTE_MS)
      engine(plane, (b) => b.stopDaemon())
      await u.pass(10_000)
      engine(plane, (b) => b.startDaemon())
      await stopped(u, id)
    },
  },
  {
    name: 'copies of its labels beside it, with its uid and with another, delete',
    hasty: false,
    pairs: false,
    ends: ['Terminated'],
    async play(u, plane) {
      const id = await up(u)
      const own = plane.world.find(u.get(id).instance?.name ?? '')?.request.labels ?? {}
      const one = plane.behind.createForeign({ name: 'copy-1', image: 'img', labels: own })
      plane.behind.start(one.id)
      plane.behind.createForeign({
        name: 'copy-2',
        image: 'img',
        labels: { ...own, [LABEL.uid]: 'uid0000000000000' },
      })
      plane.behind.createVolume('copied', {
        ...plane.world.volumes.get(u.volumeOf(id).physicalName)?.labels,
      })
      plane.monitor.guardForeign()
      await u.pass(MINUTE_MS)
      await u.ask(id, life.remove)
      await u.until(id, 'Terminated')
    },
  },
  {
    name: 'its image vanishes and its instance too, recover, until somebody pushes it',
    hasty: false,
    pairs: false,
    ends: ['Running'],
    async play(u, plane) {
      const id = await up(u)
      plane.behind.removeImage('img')
      await u.behind((b, name) => b.remove(name), id)
      await u.until(id, 'Lost')
      await u.ask(id, life.recover)
      await u.until(id, 'Blocked')
      plane.world.addImage('img', IMG, 'registry')
      await running(u, id)
    },
  },
  {
    name: 'the engine is started anew under a pause',
    hasty: false,
    pairs: false,
    ends: ['Stopped'],
    async play(u, plane) {
      const id = await up(u)
      await u.ask(id, life.pause)
      await u.until(id, 'Paused')
      engine(plane, (b) => b.stopDaemon())
      await u.pass(20_000)
      engine(plane, (b) => b.startDaemon())
      await stopped(u, id)
    },
  },
  {
    name: 'stopped by the user, and the engine is started anew',
    hasty: false,
    pairs: false,
    ends: ['Stopped'],
    async play(u, plane) {
      const id = await up(u, { restartPolicy: { kind: 'always' } })
      await u.ask(id, life.stop)
      await stopped(u, id)
      engine(plane, (b) => b.killDaemon())
      await u.pass(10_000)
      engine(plane, (b) => b.startDaemon())
      await u.pass(30_000)
    },
  },
  {
    name: 'one claim, shared by two',
    hasty: false,
    pairs: false,
    ends: ['Terminated', 'Terminated'],
    async play(u) {
      await u.createVolume('both', { shared: true })
      const mounts = [claim('both', { shared: true, createIfNotExists: false })]
      const one = await up(u, { workspace: false, mounts })
      const two = await up(u, { workspace: false, mounts })
      await u.ask(one, life.remove)
      await u.ask(two, life.remove)
      await u.until(one, 'Terminated')
      await u.until(two, 'Terminated')
      await u.purge('both')
      await u.breathe()
    },
  },
  {
    name: 'one claim, one after the other',
    hasty: false,
    pairs: false,
    ends: ['Terminated', 'Running'],
    async play(u) {
      const one = await up(u, { workspace: false, mounts: [claim('mine')] })
      await u.ask(one, life.remove)
      await u.until(one, 'Terminated')
      await up(u, { workspace: false, mounts: [claim('mine')] })
    },
  },
  {
    name: 'a volume made and purged',
    hasty: true,
    pairs: true,
    ends: [],
    async play(u) {
      await u.createVolume('alone')
      await u.breathe()
      await u.purge('alone')
      await u.breathe()
    },
  },
  {
    name: 'its volume is lost while it is stopped, recover',
    hasty: false,
    pairs: false,
    ends: ['Running'],
    async play(u, plane) {
      const id = await up(u)
      await u.ask(id, life.stop)
      await stopped(u, id)
      const name = u.volumeOf(id).physicalName
      plane.monitor.expectGone(name)
      plane.behind.removeVolume(name)
      await u.ask(id, life.start)
      await u.until(id, 'Lost', 'Blocked')
      await u.ask(id, life.recover)
      await running(u, id)
    },
  },
  {
    name: 'five wishes, one upon the other',
    hasty: true,
    pairs: false,
    ends: ['Running'],
    async play(u) {
      const id = await up(u)
      await u.ask(id, life.restart)
      await u.ask(id, life.stop)
      await u.breathe()
      await u.ask(id, life.start)
      await u.ask(id, update({ env: { B: '2' } }))
      await u.breathe()
      await running(u, id)
    },
  },
]

export function planeFor(scenario: Scenario, options: Omit<PlaneOptions, 'images' | 'registry'>): Plane {
  return createPlane({
    ...options,
    ...(scenario.images === undefined ? {} : { images: scenario.images }),
    ...(scenario.registry === undefined ? {} : { registry: scenario.registry }),
  })
}

export function scenarioOf(name: string): Scenario {
  const found = SCENARIOS.find((s) => s.name === name)
  if (found === undefined) throw new Error(`there is no scenario ${name}`)
  return found
}
