import { afterEach, describe, expect, it } from 'vitest'
import * as life from '../../src/api/intents/lifecycle.ts'
import { OK } from '../../src/engines/simulated/faults.ts'
import { LABEL } from '../../src/model/labels.ts'
import type { SandboxRecord } from '../../src/model/records.ts'
import { restartDelayMs } from '../../src/plan/backoff.ts'
import { createControlPlane, type ControlPlane, type ControlPlaneOptions } from '../support/control-plane.ts'
import { aSandbox } from '../support/plan.ts'
import {
  ask,
  calls,
  containerOf,
  end,
  failing,
  first,
  firstVolume,
  job,
  nameOf,
  running,
  sure,
} from '../support/trouble.ts'

/** What goes wrong again and again waits in between, leaves nothing behind, and stays with the one it concerns. */

let cp: ControlPlane

async function start(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
  cp = createControlPlane(options)
  await cp.start()
  return cp
}

afterEach(async () => {
  await end(cp)
})

/** Something of a sandbox that was deleted: the instance appears again, as after a call that lands very late. */
async function aRemnant(): Promise<string> {
  const id = await cp.add()
  const record = await cp.reaches(id, 'Running')
  const { labels } = containerOf(cp, record).request
  await ask(cp, id, life.remove)
  await cp.reaches(id, 'Terminated')
  await cp.converge()
  return cp.behind.createForeign({ name: nameOf(record), image: 'img', labels }).name
}

describe('loops have a wait', () => {
  it('a pause that fails', async () => {
    await start({ faults: failing('pauseInstance', 'failed') })
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    await ask(cp, id, life.pause)
    await cp.clock.advance(10_000)
    expect(calls(cp, 'pauseInstance')).toBeGreaterThan(1)
    expect(calls(cp, 'pauseInstance')).toBeLessThan(15)
  })

  it('an engine that cannot tell its runs apart does not run a job again and again', async () => {
    await start()
    cp.world.daemon.run = { engine: null, boot: null }
    const id = await cp.add(job('exit', '0', 'after', '100'))
    await cp.clock.advance(60_000)
    expect(calls(cp, 'startInstance')).toBeLessThan(5)
    expect((await cp.get(id)).status.phase).toBe('Stopped')
    const events = await cp.store.read((tx) => tx.events({ limit: 10_000 }))
    expect(events.filter((e) => e.reason === 'EngineRestarted')).toEqual([])
    expect(events.length).toBeLessThan(20)
  })

  it('the breaker closes once a start has lasted', async () => {
    let fail = true
    await start({ faults: failing('startInstance', 'failed', () => fail) })
    const id = await cp.add()
    await cp.clock.runUntil('breaker', async () => (await cp.get(id)).breaker !== null)
    fail = false
    await cp.reaches(id, 'Running')
    for (let i = 0; i < 10; i++) await cp.clock.advance(60_000)
    expect((await cp.get(id)).breaker).toBeNull()
  })

  it('restarts wait longer each time, also right after the breaker was open', async () => {
    let fail = true
    await start({ faults: failing('startInstance', 'failed', () => fail) })
    const id = await cp.add({ restartPolicy: { kind: 'always' } })
    await cp.clock.runUntil('breaker', async () => (await cp.get(id)).breaker !== null)
    fail = false
    const container = containerOf(cp, await cp.reaches(id, 'Running'))
    await cp.clock.advance(30_000)
    for (let n = 1; n <= 8; n++) {
      cp.behind.kill(container.id)
      const from = cp.clock.monotonic()
      await cp.clock.settle()
      await cp.clock.runUntil('it is up again', () => container.state === 'running', 900_000)
      expect(cp.clock.monotonic() - from, `restart ${n}`).toBeGreaterThanOrEqual(restartDelayMs(n))
      await cp.clock.advance(5)
    }
  })

  it('a mount path that the engine writes in another way is no wrong mount', async () => {
    await start({
      onPoint(kind, point) {
        if (kind !== 'create-instance' || point !== 'after-effect') return
        for (const c of cp.world.containers.values())
          Object.assign(sure(c.mounts[0], 'mount'), { path: '/sandbox/' })
      },
    })
    const id = await cp.add()
    await cp.clock.advance(30_000)
    expect(calls(cp, 'createInstance')).toBe(1)
    expect((await cp.get(id)).status.phase).toBe('Running')
  })

  it('a wait after failures outlives the process', async () => {
    await start({ faults: failing('createInstance', 'failed') })
    const id = await cp.add()
    await cp.clock.runUntil('six failures', async () => ((await cp.get(id)).backoff?.attempts ?? 0) >= 6)
    const { backoff } = await cp.get(id)
    const tries = calls(cp, 'createInstance')
    cp.crash()
    await cp.restart()
    await cp.clock.advance(5_000)
    expect((await cp.get(id)).backoff).toEqual(backoff)
    expect(calls(cp, 'createInstance')).toBe(tries)
  })

  it('a crash loop is remembered over a restart of the server', async () => {
    await start()
    const id = await cp.add({ ...job('exit', '1', 'after', '10'), restartPolicy: { kind: 'always' } })
    await cp.clock.runUntil('breaker', async () => (await cp.get(id)).breaker !== null, 1_200_000)
    const starts = calls(cp, 'startInstance')
    cp.crash()
    await cp.restart()
    await cp.clock.advance(60_000)
    expect(calls(cp, 'startInstance')).toBe(starts)
    expect(await cp.get(id)).toMatchObject({ status: { phase: 'Failed', reason: 'CrashLoop' } })
  })

  it('a remnant that cannot be removed is tried at each full look, and goes once it can', async () => {
    await start()
    const name = await aRemnant()
    cp.behind.start(name)
    cp.behind.makeZombie(name)
    const before = calls(cp, 'removeInstance')
    await cp.clock.advance(600_000)
    const tries = calls(cp, 'removeInstance') - before
    expect(tries).toBeGreaterThan(0)
    expect(tries).toBeLessThanOrEqual(600_000 / 30_000 + 1)
    expect(await cp.openSteps()).toBe(1)
    cp.behind.killDaemon()
    cp.behind.startDaemon()
    await cp.converge()
    expect(cp.world.find(name)).toBeNull()
    expect(await cp.openSteps()).toBe(0)
  })
})

describe('nothing leaks', () => {
  it('a delete whose removal fails is not finished, and its volume stays until it is', async () => {
    let fail = true
    await start({ faults: failing('removeInstance', 'failed', () => fail) })
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    await ask(cp, id, life.remove)
    await cp.clock.advance(60_000)
    expect(await cp.get(id)).toMatchObject({ deletedAt: null, status: { phase: 'Stopping' } })
    expect([cp.world.containers.size, cp.world.volumes.size]).toEqual([1, 1])
    fail = false
    await cp.reaches(id, 'Terminated')
    await cp.converge()
    expect([cp.world.containers.size, cp.world.volumes.size]).toEqual([0, 0])
  })

  it('a create that lands long after its sandbox was made anew and deleted', async () => {
    await start({ faults: first('createInstance', { kind: 'late', afterMs: 90_000 }) })
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    await ask(cp, id, life.remove)
    await cp.reaches(id, 'Terminated')
    await cp.converge()
    await cp.converge()
    expect([...cp.world.volumes.keys()]).toEqual([])
    expect(cp.world.containers.size).toBe(0)
    expect(await cp.store.read((tx) => tx.quarantine())).toEqual([])
  })

  it('a volume that an engine made again, silently, while it was being removed', async () => {
    await start()
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    const { uid, physicalName } = await firstVolume(cp)
    await ask(cp, id, life.remove)
    await cp.store.write(true, async (tx) => {
      const row = sure(await tx.volume(uid), `volume ${uid}`)
      await tx.updateVolume({ ...row, state: 'removing', purge: { by: 'user', at: 1 } })
    })
    cp.behind.removeVolume(physicalName)
    cp.behind.createVolume(physicalName)
    await cp.converge()
    await cp.converge()
    expect((await cp.store.read((tx) => tx.volume(uid)))?.state).toBe('removed')
    expect(cp.world.volumes.size).toBe(0)
  })
})

describe('strangers and damaged rows', () => {
  it.each(['listInstances', 'listVolumes'] as const)(
    'a list that failed settles nothing: what was found stays found while %s fails',
    async (call) => {
      let fail = false
      await start({ faults: failing(call, 'failed', () => fail) })
      const id = await cp.add()
      const { labels } = containerOf(cp, await cp.reaches(id, 'Running')).request
      const unknown = { ...labels, [LABEL.uid]: 'nobody0000000000' }
      const name = 'of-nobody'
      cp.behind.createForeign({ name, image: 'img', labels: { ...unknown, [LABEL.name]: name } })
      cp.behind.createVolume(name, { ...unknown, [LABEL.name]: name })
      const found = (): Promise<readonly unknown[]> => cp.store.read((tx) => tx.quarantine())
      await cp.clock.runUntil('both are found', async () => (await found()).length === 2)
      const before = await found()
      fail = true
      await cp.clock.advance(100_000)
      expect(await found()).toEqual(before)
    },
  )

  it('an instance that somebody renamed is neither touched nor doubled', async () => {
    await start()
    const id = await cp.add({ restartPolicy: { kind: 'always' } })
    const container = containerOf(cp, await cp.reaches(id, 'Running'))
    Object.assign(container, { name: 'mine' })
    await cp.converge()
    expect(running(cp)).toEqual([container])
    expect((await cp.get(id)).status).toMatchObject({ phase: 'Blocked', reason: 'InstanceRenamed' })
  })

  it('a volume of somebody else that gets a new holder just as its row is let go', async () => {
    let meanwhile: (() => void) | null = null
    await start({
      faults: {
        before(call, [name]) {
          if (call !== 'inspectVolume' || name !== 'data') return OK
          const act = meanwhile
          meanwhile = null
          act?.()
          return OK
        },
      },
    })
    cp.behind.createVolume('data', {}, { '/x': 'y' })
    const { createdAt } = sure(cp.world.volumes.get('data'), 'volume data')
    const id = await cp.add({}, foreignClaim('data', createdAt))
    const a = await cp.reaches(id, 'Running')
    const { uid } = await firstVolume(cp)
    await ask(cp, id, life.remove)
    await cp.reaches(id, 'Terminated')
    await cp.converge()

    // As it is between the sandbox's end and the volume's own pass.
    await cp.store.write(true, async (tx) => {
      const row = sure(await tx.volume(uid), `volume ${uid}`)
      await tx.updateVolume({ ...row, state: 'ready', removedAt: null })
    })
    const b: SandboxRecord = {
      ...aSandbox(),
      id: 'bbbbbbbbbbbbbbbb',
      spec: a.spec,
      specHash: a.specHash,
      imageId: null,
    }
    const claim = Promise.withResolvers<void>()
    meanwhile = () => {
      claim.resolve(
        cp.store.write(true, async (tx) => {
          expect(await tx.holdersOf(uid)).toEqual([])
          expect((await tx.volume(uid))?.state).toBe('ready')
          await tx.insertSandbox(b)
        }),
      )
    }
    cp.reconciler.kick(`volume/${uid}`)
    await cp.clock.settle()
    expect(meanwhile).toBeNull()
    await claim.promise
    cp.reconciler.kick(`sandbox/${b.id}`)
    await cp.converge()
    expect((await cp.get(b.id)).status.phase).toBe('Running')
    expect(cp.world.volumeContent('data')).toEqual({ '/x': 'y' })
  })

  it('a volume’s row that cannot be read does not end the event stream', async () => {
    await start()
    await cp.reaches(await cp.add(), 'Running')
    await cp.clock.advance(31_000)
    const { uid, physicalName } = await firstVolume(cp)
    cp.store.database.exec(`update volumes set doc = 'x' where uid = '${uid}'`)
    cp.world.emit({ kind: 'volume', name: physicalName, action: 'x', at: 0 })
    await cp.clock.settle()
    const other = await cp.add({ restartPolicy: { kind: 'always' } })
    const record = await cp.reaches(other, 'Running')
    await cp.clock.settle()
    cp.behind.kill(nameOf(record))
    await cp.clock.settle()
    await cp.clock.advance(5)
    expect((await cp.get(other)).status.reason).toBe('ExitSeen')
  })

  it('a sandbox’s row that cannot be read does not keep remnants of others', async () => {
    await start()
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    await cp.converge()
    const remnant = await aRemnant()
    cp.store.database.exec(`update sandboxes set doc = 'x' where id = '${id}'`)
    const before = calls(cp, 'listInstances')
    await cp.clock.advance(60_000)
    expect(cp.world.find(remnant)).toBeNull()
    expect(calls(cp, 'listInstances') - before).toBeLessThanOrEqual(3)
    expect(running(cp)).toHaveLength(1)
  })
})

/** The row of a volume that was on the engine before us: used, remembered by its creation time, never ours. */
function foreignClaim(name: string, createdAt: number): NonNullable<Parameters<ControlPlane['add']>[1]> {
  return {
    managed: false,
    claim: name,
    physicalName: name,
    kind: 'claim',
    owner: null,
    retention: 'retain',
    seed: 'none',
    state: 'ready',
    engineCreatedAt: createdAt,
  }
}
