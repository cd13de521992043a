import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { HOLD_LIFTED, HOLD_META } from '../../src/model/hold.ts'
import { sweepKey, volumeKey } from '../../src/model/keys.ts'
import type { SandboxRecord } from '../../src/model/records.ts'
import { specHash } from '../../src/model/spec.ts'
import { createControlPlane, type ControlPlane } from '../support/control-plane.ts'
import { createBackups } from '../support/put-back.ts'
import { dice, LIVES, randomLife } from '../support/random-life.ts'

const backups = createBackups()
let cp: ControlPlane
afterEach(() => cp.stop())
afterAll(() => backups.clean())

/** What runs, by name: id and start time. */
const running = (): Record<string, string> =>
  Object.fromEntries(
    [...cp.world.containers.values()]
      .filter((c) => c.state === 'running')
      .map((c) => [c.name, `${c.id} ${c.startedAt}`]),
  )
const names = (): string[] => [...cp.world.containers.values()].map((c) => c.name).toSorted()
const volumeNames = (): string[] => [...cp.world.volumes.keys()].toSorted()
const quarantined = async (): Promise<string[]> =>
  (await cp.store.read((tx) => tx.quarantine())).map((q) => q.name).toSorted()
const removals = (): number =>
  (cp.world.effects.get('removeInstance') ?? 0) + (cp.world.effects.get('removeVolume') ?? 0)

async function confirm(): Promise<void> {
  await cp.store.write(true, (tx) => tx.setMeta(HOLD_META, HOLD_LIFTED))
  cp.reconciler.kick(sweepKey('sim'))
  await cp.converge()
}

async function restore(backup: string): Promise<void> {
  backups.putBack(cp, backup)
  await cp.start()
  await cp.converge()
}

async function update(id: string): Promise<void> {
  await cp.change(id, (r) => {
    const spec = { ...r.spec, env: { ...r.spec.env, V: String(r.generation) } }
    return { spec, specHash: specHash(spec), generation: r.generation + 1, desiredReason: 'update' }
  })
  await cp.converge()
}

async function wish(id: string, change: Partial<SandboxRecord>): Promise<void> {
  await cp.change(id, (r) => ({
    desired: 'running',
    desiredReason: 'user',
    desiredAt: cp.clock.now(),
    generation: r.generation + 1,
    startAsked: true,
    recoverSeq: r.recoverSeq + 1,
    ...change,
  }))
  await cp.converge()
}

describe('a restored older backup', () => {
  it('what ran before and after it runs on; what is newer is quarantined, and neither is ever removed', async () => {
    cp = createControlPlane()
    await cp.start()
    const old = await cp.add()
    await cp.reaches(old, 'Running')
    const backup = backups.of(cp)
    const fresh = await cp.add()
    await cp.reaches(fresh, 'Running')
    await cp.converge()
    const before = { running: running(), names: names(), volumes: volumeNames(), removals: removals() }

    await restore(backup)
    expect((await cp.get(old)).status.phase).toBe('Running')
    expect(await quarantined()).toContain(`hf-${fresh}-1`)
    expect(await quarantined()).toHaveLength(2)

    await confirm()
    expect({ running: running(), names: names(), volumes: volumeNames(), removals: removals() }).toEqual(
      before,
    )
    expect(await quarantined()).toHaveLength(2)
  })

  it('a sandbox deleted after it comes back as Lost, and is not made again on an empty volume', async () => {
    cp = createControlPlane()
    await cp.start()
    const ran = await cp.add()
    const policy = await cp.add({ restartPolicy: { kind: 'always' } })
    for (const id of [ran, policy]) await cp.reaches(id, 'Running')
    const pending = await cp.add({ spec: { ...(await cp.get(ran)).spec, image: 'none' } })
    await cp.converge()
    const backup = backups.of(cp)
    for (const id of [ran, policy, pending]) await cp.want(id, 'deleted')
    await cp.converge()
    expect([names(), volumeNames()]).toEqual([[], []])

    await restore(backup)
    expect([names(), volumeNames()]).toEqual([[], []])
    expect((await cp.get(ran)).status).toMatchObject({ phase: 'Lost' })
    expect((await cp.get(policy)).status.phase).toMatch(/Lost|Blocked/)

    await confirm()
    expect(names()).toEqual([])
    expect((await cp.get(ran)).status.phase).toBe('Lost')
    expect((await cp.get(policy)).status.phase).toBe('Lost')
    // The pending one had no data to lose; its volume is made with it.
    expect(await cp.openSteps()).toBe(0)
  })

  it('a sandbox that was stopped after it stays stopped, whatever its policy', async () => {
    cp = createControlPlane()
    await cp.start()
    const id = await cp.add({ restartPolicy: { kind: 'always' } })
    await cp.reaches(id, 'Running')
    const backup = backups.of(cp)
    await cp.want(id, 'stopped')
    await cp.reaches(id, 'Stopped')
    await cp.clock.advance(5_000)
    await restore(backup)
    expect(running()).toEqual({})
    expect((await cp.get(id)).status).toMatchObject({ phase: 'Blocked', reason: 'Held' })
    await wish(id, {})
    await cp.reaches(id, 'Running')
    cp.behind.kill(`hf-${id}-1`)
    await cp.clock.advance(1)
    await cp.reaches(id, 'Running')
  })

  it('a newer instance keeps the store from making a second one, until a person removes it', async () => {
    cp = createControlPlane()
    await cp.start()
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    const backup = backups.of(cp)
    await update(id)
    await update(id)
    expect(names()).toEqual([`hf-${id}-3`])
    const before = running()

    await restore(backup)
    expect((await cp.get(id)).instance?.number).toBe(1)
    expect(await quarantined()).toEqual([`hf-${id}-3`])
    await wish(id, { mayReplaceVolumes: true })
    expect((await cp.get(id)).status).toMatchObject({ phase: 'Blocked', reason: 'NewerInstance' })
    await confirm()
    await wish(id, { mayReplaceVolumes: true })
    expect((await cp.get(id)).status).toMatchObject({ phase: 'Blocked', reason: 'NewerInstance' })
    expect(running()).toEqual(before)

    cp.behind.remove(`hf-${id}-3`)
    await cp.reaches(id, 'Running')
    expect(names()).toEqual([`hf-${id}-2`])
  })

  it.each(['pending', 'seeding'] as const)(
    'a volume that was %s then, and written to since, keeps its data',
    async (seed) => {
      cp = createControlPlane()
      await cp.start()
      const id = await cp.add()
      await cp.reaches(id, 'Running')
      const [made] = await cp.volumes()
      const name = made?.physicalName ?? ''
      cp.world.writeVolume(name, '/work.txt', 'mine')
      cp.world.writeVolume(name, '/seed.txt', 'changed')
      await cp.want(id, 'stopped')
      await cp.converge()
      cp.behind.remove(`hf-${id}-1`)
      // The store as it was when the volume was there and its seeding was not known to be over.
      cp.crash()
      await cp.store.write(true, async (tx) => {
        const record = await tx.sandbox(id)
        const volume = await tx.volume(made?.uid ?? '')
        if (record === null || volume === null) throw new Error('the rows are gone')
        await tx.updateSandbox({ ...record, instance: null, instanceSeq: 0, lastExit: null })
        await tx.updateVolume({ ...volume, seed })
      })
      await restore(backups.of(cp))
      await confirm()
      await wish(id, {})
      expect((await cp.get(id)).status.phase).toBe('Running')
      expect(cp.world.volumeContent(name)).toMatchObject({ '/work.txt': 'mine', '/seed.txt': 'changed' })
    },
  )

  it('a volume that took the place of a lost one since is never seeded over, also once it is confirmed', async () => {
    cp = createControlPlane()
    await cp.start()
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    const backup = backups.of(cp)
    const lose = async (): Promise<void> => {
      for (const name of names()) cp.behind.remove(name)
      await cp.converge()
    }
    await lose()
    cp.world.volumes.clear()
    await cp.reconciler.resync('sim')
    await wish(id, { mayReplaceVolumes: true })
    const [newer = ''] = volumeNames()
    cp.world.writeVolume(newer, '/seed.txt', 'changed')

    await restore(backup)
    await confirm()
    await lose()
    await wish(id, { mayReplaceVolumes: true })
    expect((await cp.get(id)).status.phase).toBe('Running')
    expect(cp.world.volumeContent(newer)).toMatchObject({ '/seed.txt': 'changed' })
    expect(volumeNames()).toHaveLength(2)
  })

  it('nothing expires and no delete that was under way goes on, until it is confirmed', async () => {
    cp = createControlPlane()
    await cp.start()
    const short = await cp.add({ expiresAt: cp.clock.now() + 400_000 })
    const going = await cp.add()
    for (const id of [short, going]) await cp.reaches(id, 'Running')
    // Committed at the moment of a crash: nothing of it is done yet.
    cp.crash()
    const record = await cp.get(going)
    const gone = { ...record, desired: 'deleted', generation: record.generation + 1 } as const
    await cp.store.write(true, (tx) => tx.updateSandbox(gone))
    const backup = backups.of(cp)
    const before = running()

    await restore(backup)
    await cp.clock.advance(1_000_000)
    expect(running()).toEqual(before)
    expect((await cp.get(going)).status).toMatchObject({ phase: 'Stopping', reason: 'Held' })
    expect((await cp.get(short)).desired).toBe('running')
    expect(removals()).toBe(0)

    await confirm()
    expect([names(), volumeNames()]).toEqual([[], []])
  })

  it('what people ask for from then on is done, and idleness stays idle', async () => {
    cp = createControlPlane()
    await cp.start()
    const a = await cp.add()
    await cp.reaches(a, 'Running')
    await restore(backups.of(cp))
    const b = await cp.add()
    await cp.reaches(b, 'Running')
    await cp.want(a, 'stopped')
    await cp.reaches(a, 'Stopped')
    await wish(a, {})
    expect((await cp.get(a)).status.phase).toBe('Running')
    await update(b)
    expect((await cp.get(b)).status).toMatchObject({ phase: 'Blocked', reason: 'Held' })
    const still = { effects: cp.world.mutations(), running: running() }
    await cp.converge()
    expect({ effects: cp.world.mutations(), running: running() }).toEqual(still)
    await confirm()
    expect((await cp.get(b)).status.phase).toBe('Running')
    expect(names()).toEqual([`hf-${a}-1`, `hf-${b}-2`].toSorted())
  })

  it('a remnant whose tombstone is known is left alone until it is confirmed', async () => {
    cp = createControlPlane()
    await cp.start()
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    const container = cp.world.find(`hf-${id}-1`)
    await cp.want(id, 'deleted')
    await cp.converge()
    const backup = backups.of(cp)
    cp.world.containers.set(container!.id, container!)
    await restore(backup)
    expect(names()).toEqual([`hf-${id}-1`])
    expect(await quarantined()).toEqual([`hf-${id}-1`])
    await confirm()
    expect(names()).toEqual([])
    expect(await quarantined()).toEqual([])
  })
})

describe('any life, restored from any moment of it', () => {
  it.each(Array.from({ length: LIVES }, (_, n) => n + 1))('life %i', async (seed) => {
    cp = createControlPlane({ seed: `life-${seed}` })
    const roll = dice(seed)
    const live = randomLife(cp, roll)
    await cp.start()
    await live(6 + roll(10))
    const backup = backups.of(cp)
    await live(4 + roll(12))

    // Whatever was in hand at the crash is part of the world that the restored store finds.
    backups.putBack(cp, backup)
    await cp.clock.settle()
    const before = running()
    const volumes = volumeNames()
    const gone = removals()
    await cp.start()
    await cp.converge()
    expect(running(), 'what ran runs on, and nothing else').toEqual(before)
    expect(volumeNames()).toEqual(volumes)
    expect(removals()).toBe(gone)
    const effects = cp.world.mutations()
    await cp.converge()
    expect(cp.world.mutations(), 'stillness').toBe(effects)

    const known = new Set(await quarantined())
    await confirm()
    await cp.converge()
    const live2 = new Map<string, number>()
    for (const c of cp.world.containers.values())
      if (c.state === 'running') {
        const sandbox = c.request.labels['holdfast.dev/sandbox'] ?? ''
        live2.set(sandbox, (live2.get(sandbox) ?? 0) + 1)
      }
    expect(
      [...live2.values()].filter((n) => n > 1),
      'two instances of one sandbox',
    ).toEqual([])
    for (const name of known) {
      const there = cp.world.find(name) !== null || cp.world.volumes.has(name)
      const buried =
        (await cp.store.read((tx) => tx.tombstoneByName('sim', 'instance', name))) !== null ||
        (await cp.store.read((tx) => tx.tombstoneByName('sim', 'volume', name))) !== null
      expect([name, there || buried]).toEqual([name, true])
    }
    expect(await cp.openSteps()).toBe(0)
    for (const v of await cp.volumes()) cp.reconciler.kick(volumeKey(v.uid))
    const settled = cp.world.mutations()
    await cp.converge()
    expect(cp.world.mutations(), 'stillness after').toBe(settled)
  })
})
