import { afterEach, describe, expect, it } from 'vitest'
import { createControlPlane, type ControlPlane, type ControlPlaneOptions } from '../support/control-plane.ts'

let cp: ControlPlane

async function start(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
  cp = createControlPlane(options)
  await cp.start()
  return cp
}

afterEach(async () => {
  await cp.stop()
})

const only = (): { id: string; startedAt: number | null } => {
  const all = [...cp.world.containers.values()]
  expect(all).toHaveLength(1)
  return { id: all[0]?.id ?? '', startedAt: all[0]?.startedAt ?? null }
}

describe('the life of a sandbox', () => {
  it('is made with its seeded workspace, stopped, started, and gone with it', async () => {
    await start()
    const id = await cp.add()
    const running = await cp.reaches(id, 'Running')
    expect(running.observedGeneration).toBe(running.generation)
    const volume = (await cp.volumes())[0]
    expect(volume).toMatchObject({ state: 'ready', seed: 'seeded' })
    expect(cp.world.volumeContent(volume?.physicalName ?? '')).toEqual({ '/seed.txt': 'seeded' })

    await cp.want(id, 'stopped')
    await cp.reaches(id, 'Stopped')
    expect((await cp.get(id)).lastExit?.class).toBe('asked')
    await cp.want(id, 'running')
    await cp.reaches(id, 'Running')
    expect((await cp.get(id)).instance?.number).toBe(1)

    await cp.want(id, 'deleted')
    await cp.reaches(id, 'Terminated')
    await cp.converge()
    expect(cp.world.containers.size + cp.world.volumes.size).toBe(0)
    expect(await cp.openSteps()).toBe(0)
  })

  it('pauses and resumes without a restart', async () => {
    await start()
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    const before = only()
    await cp.want(id, 'paused')
    await cp.reaches(id, 'Paused')
    await cp.want(id, 'running')
    await cp.reaches(id, 'Running')
    expect(only()).toEqual(before)
  })

  it('a restart that was asked for happens once, also when it is retried', async () => {
    await start()
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    const before = only()
    await cp.change(id, (r) => ({ restartSeq: r.restartSeq + 1 }))
    await cp.converge()
    const after = only()
    expect(after.id).toBe(before.id)
    expect(after.startedAt).toBeGreaterThan(before.startedAt ?? 0)
    await cp.converge()
    expect(only()).toEqual(after)
  })

  it('an update makes a new instance on the same volume', async () => {
    await start()
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    const volume = (await cp.volumes())[0]?.physicalName ?? ''
    cp.world.writeVolume(volume, '/mine.txt', 'data')
    await cp.change(id, (r) => ({ specHash: 'v1-other', generation: r.generation + 1 }))
    await cp.converge()
    const now = await cp.get(id)
    expect(now).toMatchObject({ status: { phase: 'Running' }, instance: { number: 2 } })
    expect(cp.world.volumeContent(volume)).toMatchObject({ '/mine.txt': 'data' })
    expect(cp.world.containers.size).toBe(1)
  })
})

describe('the image’s content', () => {
  it('a workspace is seeded once, whatever its user made of it', async () => {
    await start()
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    const volume = (await cp.volumes())[0]?.physicalName ?? ''
    cp.world.writeVolume(volume, '/seed.txt', 'changed by its user')
    await cp.change(id, (r) => ({ specHash: 'v1-other', generation: r.generation + 1 }))
    await cp.converge()
    expect(await cp.get(id)).toMatchObject({ status: { phase: 'Running' }, instance: { number: 2 } })
    expect(cp.world.volumeContent(volume)).toEqual({ '/seed.txt': 'changed by its user' })
  })
})

describe('trouble', () => {
  it('an instance removed behind its back: Lost, then recover on the same volume', async () => {
    await start()
    const id = await cp.add()
    const running = await cp.reaches(id, 'Running')
    cp.behind.remove(running.instance?.name ?? '')
    await cp.reaches(id, 'Lost')
    await cp.converge()
    expect(cp.world.containers.size).toBe(0)
    await cp.change(id, (r) => ({ recoverSeq: r.recoverSeq + 1, desired: 'running' }))
    const back = await cp.reaches(id, 'Running')
    expect(back.instance?.number).toBe(2)
    expect(cp.world.volumes.size).toBe(1)
  })

  it('with restart policy always that happens by itself', async () => {
    await start()
    const id = await cp.add({ restartPolicy: { kind: 'always' } })
    const running = await cp.reaches(id, 'Running')
    cp.behind.remove(running.instance?.name ?? '')
    await cp.converge()
    expect(await cp.get(id)).toMatchObject({ status: { phase: 'Running' }, instance: { number: 2 } })
  })

  it('a volume removed behind its back is never replaced by an empty one, until a person recovers', async () => {
    await start()
    const id = await cp.add()
    const running = await cp.reaches(id, 'Running')
    await cp.want(id, 'stopped')
    await cp.reaches(id, 'Stopped')
    cp.behind.remove(running.instance?.name ?? '')
    cp.behind.removeVolume((await cp.volumes())[0]?.physicalName ?? '')
    await cp.want(id, 'running')
    await cp.converge()
    expect((await cp.get(id)).status.phase).toBe('Lost')
    expect(cp.world.volumes.size).toBe(0)
    await cp.change(id, (r) => ({ recoverSeq: r.recoverSeq + 1, mayReplaceVolumes: true }))
    await cp.converge()
    expect((await cp.get(id)).status.phase).toBe('Running')
  })

  it.each([0, 137, 143, 255])(
    'a daemon stopped in order, with status %i: what was wanted runs again, what was stopped does not',
    async (code) => {
      await start()
      const [a, b] = [await cp.add(), await cp.add()]
      await cp.reaches(a, 'Running')
      await cp.reaches(b, 'Running')
      await cp.want(b, 'stopped')
      await cp.reaches(b, 'Stopped')
      cp.behind.stopDaemon({ code })
      await cp.converge()
      expect((await cp.get(a)).desired).toBe('running')
      cp.behind.startDaemon()
      await cp.converge()
      expect((await cp.get(a)).status.phase).toBe('Running')
      expect((await cp.get(b)).status.phase).toBe('Stopped')
    },
  )

  it('an engine that is away: Unknown, and nothing is changed', async () => {
    await start()
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    const before = cp.world.mutations()
    cp.behind.killDaemon()
    await cp.reconciler.resync('sim').catch(() => undefined)
    cp.reconciler.kick(`sandbox/${id}`)
    await cp.reaches(id, 'Unknown')
    await cp.converge()
    expect(cp.world.mutations()).toBe(before)
    expect((await cp.get(id)).desired).toBe('running')
  })

  it('a workload that completes stays completed, over engine and server restarts', async () => {
    await start()
    const id = await cp.add()
    await cp.change(id, (r) => ({ spec: { ...r.spec, entrypoint: ['sim', 'exit', '0', 'after', '5000'] } }))
    await cp.reaches(id, 'Stopped')
    await cp.converge()
    expect(await cp.get(id)).toMatchObject({ desired: 'stopped', desiredReason: 'exited' })
    cp.behind.cutPower()
    cp.behind.startDaemon()
    cp.crash()
    await cp.restart()
    await cp.converge()
    expect((await cp.get(id)).status.phase).toBe('Stopped')
  })

  it('a job that ended while only the server was down is not run again', async () => {
    await start()
    const id = await cp.add()
    const r = await cp.reaches(id, 'Running')
    cp.crash()
    cp.behind.kill(r.instance?.name ?? '')
    await cp.restart()
    await cp.converge()
    expect(await cp.get(id)).toMatchObject({ desired: 'stopped', status: { phase: 'Stopped' } })
  })

  it('expires from the store, also when the time came while the server was down', async () => {
    await start()
    const id = await cp.add({ expiresAt: cp.clock.now() + 120_000 })
    const renewed = await cp.add({ expiresAt: cp.clock.now() + 120_000 })
    await cp.reaches(id, 'Running')
    await cp.change(renewed, () => ({ expiresAt: cp.clock.now() + 3_600_000 }))
    cp.crash()
    await cp.clock.advance(200_000)
    await cp.restart()
    await cp.converge()
    expect(await cp.get(id)).toMatchObject({ desiredReason: 'expiry', status: { phase: 'Terminated' } })
    expect((await cp.get(renewed)).status.phase).toBe('Running')
    expect(cp.world.containers.size).toBe(1)
    expect(cp.world.volumes.size).toBe(1)
  })

  it('a missing image is Blocked with its error and a time, and comes right when the image appears', async () => {
    await start()
    const id = await cp.add()
    await cp.change(id, (r) => ({ spec: { ...r.spec, image: 'none' } }))
    const blocked = await cp.reaches(id, 'Blocked')
    expect(blocked.status.nextAt).toBeGreaterThan(0)
    expect(blocked.status.reason).toBe('ImageMissing')
    cp.world.addImage('none', {})
    await cp.converge()
    expect((await cp.get(id)).status.phase).toBe('Running')
  })

  it('after all of that it stays still', async () => {
    await start()
    for (let i = 0; i < 5; i++) await cp.add()
    await cp.converge()
    const before = cp.world.mutations()
    const seq = await cp.store.read((tx) => tx.lastEventSeq())
    await cp.converge()
    expect(cp.world.mutations()).toBe(before)
    expect(await cp.store.read((tx) => tx.lastEventSeq())).toBe(seq)
  })
})

describe('remnants and strangers', () => {
  it('a stranger under the name that was chosen: Blocked, the stranger untouched, and on when it is gone', async () => {
    let id = ''
    let taken = false
    await start({
      onPoint(kind, point) {
        if (kind !== 'create-instance' || point !== 'after-intent' || taken) return
        taken = true
        cp.behind.createForeign({ name: `hf-${id}-1`, image: 'img', labels: {} })
      },
    })
    id = await cp.add()
    const blocked = await cp.reaches(id, 'Blocked')
    expect(blocked.status.reason).toBe('NameCollision')
    await cp.clock.advance(60_000)
    const names = [...cp.world.containers.values()].map((c) => [c.name, Object.keys(c.request.labels).length])
    expect(names).toEqual([[`hf-${id}-1`, 0]])
    cp.behind.remove(`hf-${id}-1`)
    await cp.reaches(id, 'Running')
  })

  it('removes what has a tombstone, quarantines what nobody knows, and leaves copies and strangers alone', async () => {
    await start()
    const id = await cp.add()
    const r = await cp.reaches(id, 'Running')
    const labels = { ...cp.world.find(r.instance?.name ?? '')?.request.labels }
    cp.behind.createForeign({ name: 'users-own', image: 'img', labels })
    cp.behind.createForeign({ name: 'stranger', image: 'img', labels: {} })
    const lateName = 'hf-unknown-1'
    cp.behind.createForeign({
      name: lateName,
      image: 'img',
      labels: { ...labels, 'holdfast.dev/uid': 'nobody0000000000', 'holdfast.dev/name': lateName },
    })
    await cp.want(id, 'deleted')
    await cp.reaches(id, 'Terminated')
    await cp.converge()
    // The same object again, as a call would make it that landed long after its time-out.
    cp.behind.createForeign({ name: r.instance?.name ?? '', image: 'img', labels })
    await cp.converge()
    expect([...cp.world.containers.values()].map((c) => c.name).toSorted()).toEqual(
      [lateName, 'stranger', 'users-own'].toSorted(),
    )
    const quarantined = await cp.store.read((tx) => tx.quarantine())
    expect(quarantined.map((q) => q.name)).toEqual([lateName])
  })
})
