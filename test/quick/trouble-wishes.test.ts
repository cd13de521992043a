import { afterEach, describe, expect, it } from 'vitest'
import * as life from '../../src/api/intents/lifecycle.ts'
import { EXIT_SETTLE_MS } from '../../src/plan/exit.ts'
import { planSandbox } from '../../src/plan/sandbox.ts'
import { createControlPlane, type ControlPlane, type ControlPlaneOptions } from '../support/control-plane.ts'
import { aSandbox, facts, view, withInstance } from '../support/plan.ts'
import {
  ask,
  calls,
  end,
  failing,
  first,
  firstVolume,
  job,
  nameOf,
  running,
  sure,
} from '../support/trouble.ts'

/** What was acknowledged is reached: through lost things, late effects, clocks that jump, and a stop of the server. */

let cp: ControlPlane

async function start(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
  cp = createControlPlane(options)
  await cp.start()
  return cp
}

afterEach(async () => {
  await end(cp)
})

const phaseOf = async (id: string): Promise<string> => (await cp.get(id)).status.phase

/** A sandbox that is Lost because somebody removed its instance. */
async function aLostOne(): Promise<string> {
  const id = await cp.add()
  cp.behind.remove(nameOf(await cp.reaches(id, 'Running')))
  await cp.reaches(id, 'Lost')
  return id
}

/** A stopped sandbox whose instance and volume, with data in it, are gone. `back` brings the volume back. */
async function withLostVolume(): Promise<{ id: string; volume: string; back: () => void }> {
  const id = await cp.add()
  const record = await cp.reaches(id, 'Running')
  await ask(cp, id, life.stop)
  await cp.reaches(id, 'Stopped')
  const volume = (await firstVolume(cp)).physicalName
  const { labels } = sure(cp.world.volumes.get(volume), `volume ${volume}`)
  cp.behind.remove(nameOf(record))
  cp.behind.removeVolume(volume)
  await ask(cp, id, life.start)
  await cp.converge()
  return { id, volume, back: () => cp.behind.createVolume(volume, labels, { '/mine': 'data' }) }
}

describe('wishes survive', () => {
  it('a start that was acknowledged while the end was not seen yet', async () => {
    await start()
    const id = await cp.add()
    const record = await cp.reaches(id, 'Running')
    await cp.converge()
    cp.crash()
    cp.behind.kill(nameOf(record))
    await cp.clock.advance(1000)
    // The API answers before the reconciler has looked.
    await ask(cp, id, life.start)
    await cp.restart()
    await cp.converge()
    expect(await phaseOf(id)).toBe('Running')
  })

  it('a stop and a start in a row on a lost one', async () => {
    await start()
    const id = await aLostOne()
    await cp.change(id, (record) => {
      const stopped = sure(life.stop(record, cp.clock.now()), 'change by the stop').record
      return sure(life.start(stopped, cp.clock.now()), 'change by the start').record
    })
    await cp.converge()
    expect(await phaseOf(id)).toBe('Running')
  })

  it('a stop of a lost one is applied, and said to be', async () => {
    await start()
    const id = await aLostOne()
    await ask(cp, id, life.stop)
    await cp.converge()
    const record = await cp.get(id)
    expect(record.observedGeneration).toBe(record.generation)
    expect(record).toMatchObject({ desired: 'stopped', status: { phase: 'Lost' } })
  })

  it('a start of a lost one while its engine is away', async () => {
    await start()
    const id = await aLostOne()
    cp.behind.killDaemon()
    cp.reconciler.kick(`sandbox/${id}`)
    await cp.reaches(id, 'Unknown')
    await ask(cp, id, life.start)
    await cp.clock.advance(1000)
    cp.behind.startDaemon()
    await cp.converge()
    expect(await phaseOf(id)).toBe('Running')
  })

  it('a recover, asked before the loss of the volume was noticed', async () => {
    await start({ faults: { before: () => ({ kind: 'ok' }), event: () => 'drop' } })
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    await cp.converge()
    const { physicalName } = await firstVolume(cp)
    cp.behind.forgetContainers()
    cp.behind.removeVolume(physicalName)
    cp.reconciler.kick(`sandbox/${id}`)
    await cp.clock.settle()
    expect((await cp.get(id)).status.reason).toBe('InstanceGone')
    expect((await firstVolume(cp)).state).toBe('ready')
    await ask(cp, id, life.recover)
    await cp.converge()
    await cp.converge()
    expect(await phaseOf(id)).toBe('Running')
  })

  it('a start that follows a stop which lands late', async () => {
    await start({ faults: first('stopInstance', { kind: 'late', afterMs: 60_000 }) })
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    await ask(cp, id, life.stop)
    await cp.reaches(id, 'Stopped')
    await ask(cp, id, life.start)
    await cp.reaches(id, 'Running')
    await cp.converge()
    expect(await phaseOf(id)).toBe('Running')
    expect(running(cp)).toHaveLength(1)
  })

  it('a stop that follows a start which lands late', async () => {
    await start({ faults: first('startInstance', { kind: 'late', afterMs: 60_000 }) })
    const id = await cp.add()
    await cp.clock.advance(100)
    await ask(cp, id, life.stop)
    await cp.converge()
    await cp.converge()
    expect(await phaseOf(id)).toBe('Stopped')
    expect(running(cp)).toEqual([])
    expect(await cp.openSteps()).toBe(0)
  })

  it('a pause that meets an end of its own: stopped as exited, not as an engine restart', async () => {
    await start()
    const id = await cp.add({ restartPolicy: { kind: 'always' } })
    const record = await cp.reaches(id, 'Running')
    await cp.change(id, (now) => {
      cp.behind.kill(nameOf(record))
      return sure(life.pause(now, cp.clock.now()), 'change by the pause').record
    })
    await cp.converge()
    expect(await cp.get(id)).toMatchObject({
      desired: 'stopped',
      desiredReason: 'exited',
      status: { phase: 'Stopped' },
    })
  })

  it('a delete of one that the engine refused for good', async () => {
    await start({ faults: failing('createInstance', 'invalid') })
    const id = await cp.add({ name: 'x' })
    await cp.reaches(id, 'Failed')
    await ask(cp, id, life.remove)
    await cp.converge()
    expect((await cp.get(id)).deletedAt).not.toBeNull()
  })

  it('a delete when the engine refuses to stop it; what is retained stays', async () => {
    await start({ faults: failing('stopInstance', 'denied') })
    const id = await cp.add({}, { retention: 'retain' })
    await cp.reaches(id, 'Running')
    await ask(cp, id, life.remove)
    for (let i = 0; i < 6; i++) await cp.converge()
    expect((await cp.get(id)).deletedAt).not.toBeNull()
    expect(cp.world.containers.size).toBe(0)
    expect([...cp.world.volumes.keys()]).toEqual([(await firstVolume(cp)).physicalName])
  })

  it('an update to an image that the engine has not and cannot pull leaves the present instance alone', () => {
    const base = aSandbox()
    const record = withInstance({
      specHash: 'v1-new',
      spec: { ...base.spec, image: 'typo' },
      status: { ...base.status, phase: 'Running' },
    })
    const decision = planSandbox(view(record, facts(), { image: null, canPull: false }))
    expect(decision.step).toBeNull()
    expect(decision.record.status).toMatchObject({ phase: 'Blocked', reason: 'ImageMissing' })
  })

  it('an update of a paused one is not claimed to be applied', () => {
    const record = withInstance({
      desired: 'paused',
      generation: 5,
      observedGeneration: 3,
      specHash: 'v1-new',
    })
    expect(planSandbox(view(record, facts({ paused: true }))).record.observedGeneration).toBe(3)
  })
})

it('an instance that is removed while its start is in doubt does not keep the next one from starting', async () => {
  let died = false
  await start({
    onPoint(kind, point) {
      if (died || kind !== 'start-instance' || point !== 'after-effect') return
      died = true
      cp.behind.remove(sure(running(cp)[0], 'running container').name)
      cp.crash()
    },
  })
  const id = await cp.add({ restartPolicy: { kind: 'always' } })
  await cp.clock.advance(1000)
  expect(died).toBe(true)
  await cp.restart()
  // Well before the limit of the first start, after which its row would be let go of anyway.
  await cp.clock.advance(10_000)
  expect(await cp.get(id)).toMatchObject({ instance: { number: 2 }, status: { phase: 'Running' } })
  expect(await cp.openSteps()).toBe(0)
})

describe('data that is gone', () => {
  it('a start, asked twice, does not start on an empty volume in its place', async () => {
    await start()
    const { id } = await withLostVolume()
    expect(await phaseOf(id)).toBe('Lost')
    await ask(cp, id, life.start)
    await cp.converge()
    expect(await phaseOf(id)).toBe('Lost')
    expect(cp.world.volumes.size).toBe(0)
  })

  it.each([['while', false] as const, ['after a crash while', true] as const])(
    'a volume that comes back %s its replacement is being made is kept, with its data',
    async (_when, crashes) => {
      let back: (() => void) | null = null
      await start({
        onPoint(kind, point) {
          if (back === null || kind !== 'create-volume' || point !== 'before-intent') return
          back()
          back = null
          // The sandbox's pass has recorded the replacement; nothing of the volume's own pass has.
          if (crashes) cp.crash()
        },
      })
      const lost = await withLostVolume()
      expect((await firstVolume(cp)).state).toBe('lost')
      back = lost.back
      await ask(cp, lost.id, life.recover)
      await cp.clock.settle()
      expect(back).toBeNull()
      if (crashes) await cp.restart()
      await cp.converge()
      const row = await firstVolume(cp)
      expect(row.make).toBeGreaterThan(1)
      expect([...cp.world.volumes.keys()].toSorted()).toEqual([lost.volume, row.physicalName].toSorted())
      expect(cp.world.volumeContent(lost.volume)).toEqual({ '/mine': 'data' })
      expect(await phaseOf(lost.id)).toBe('Running')
      expect((await cp.store.read((tx) => tx.quarantine())).map((q) => q.name)).toEqual([lost.volume])
    },
  )
})

describe('time', () => {
  it('a clock that jumps back after a start does not run a job again and again', async () => {
    await start()
    const id = await cp.add(job('exit', '0', 'after', '3000'))
    await cp.reaches(id, 'Stopped')
    await cp.converge()
    const before = calls(cp, 'startInstance')
    await ask(cp, id, life.start)
    await cp.clock.advance(1000)
    cp.clock.jump(-3_600_000)
    await cp.clock.advance(120_000)
    expect(calls(cp, 'startInstance') - before).toBe(1)
    expect(await phaseOf(id)).toBe('Stopped')
  })

  it('a clock that jumps back while an exit is provisional does not hold the restart', async () => {
    await start()
    const id = await cp.add({ restartPolicy: { kind: 'always' } })
    const record = await cp.reaches(id, 'Running')
    await cp.converge()
    cp.behind.kill(nameOf(record))
    await cp.clock.settle()
    await cp.clock.advance(EXIT_SETTLE_MS / 100)
    expect((await cp.get(id)).lastExit?.class).toBe('provisional')
    cp.clock.jump(-3_600_000)
    await cp.clock.advance(600_000)
    expect(await phaseOf(id)).toBe('Running')
  })

  it('a clock that jumps back by a day does not make a backoff that long', async () => {
    let fail = true
    await start({ faults: failing('startInstance', 'failed', () => fail) })
    const id = await cp.add()
    await cp.clock.advance(3000)
    expect((await cp.get(id)).backoff).not.toBeNull()
    fail = false
    cp.clock.jump(-86_400_000)
    await cp.clock.advance(3_600_000)
    expect(await phaseOf(id)).toBe('Running')
  })

  it('expiry ends a pull that hangs', async () => {
    await start({ faults: first('pullImage', { kind: 'hang' }) })
    const id = await cp.add({ expiresAt: cp.clock.now() + 60_000 })
    await cp.change(id, (record) => ({ spec: { ...record.spec, image: 'big' } }))
    await cp.clock.advance(600_000)
    expect((await cp.get(id)).deletedAt).not.toBeNull()
  })

  it('expiry is not held by the backoff of a start', async () => {
    await start({ faults: failing('startInstance', 'failed') })
    const id = await cp.add({ expiresAt: cp.clock.now() + 400_000 })
    await cp.clock.advance(430_000)
    expect((await cp.get(id)).deletedAt).not.toBeNull()
    expect(cp.world.containers.size).toBe(0)
  })
})

describe('shutdown', () => {
  it('finishes the step in hand and begins no other', async () => {
    const stopping: Promise<void>[] = []
    await start({
      onPoint(kind, point) {
        if (kind === 'create-instance' && point === 'after-effect') stopping.push(cp.reconciler.stop())
      },
    })
    await cp.add()
    await cp.clock.advance(5000)
    expect(stopping).toHaveLength(1)
    await stopping[0]
    expect(calls(cp, 'startInstance')).toBe(0)
    expect(cp.world.containers.size).toBe(1)
    expect(await cp.openSteps()).toBe(0)
  })

  it('does not wait for a pull', async () => {
    await start({ faults: { before: (c) => (c === 'pullImage' ? { kind: 'hang' } : { kind: 'ok' }) } })
    const id = await cp.add()
    await cp.change(id, (record) => ({ spec: { ...record.spec, image: 'big' } }))
    await cp.clock.advance(100)
    expect(calls(cp, 'pullImage')).toBe(1)
    let done = false
    const stopping = cp.reconciler.stop().then(() => (done = true))
    await cp.clock.advance(60_000)
    expect(done).toBe(true)
    await stopping
  })
})
