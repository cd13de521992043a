import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Engine } from '../../src/engines/engine.ts'
import { createSimulatedEngine } from '../../src/engines/simulated/engine.ts'
import { HOLD_LIFTED, HOLD_META } from '../../src/model/hold.ts'
import { sweepKey } from '../../src/model/keys.ts'
import { specHash } from '../../src/model/spec.ts'
import { rebuild, type RebuildOptions, type RebuildResult } from '../../src/recovery/rebuild.ts'
import { restoreBackup } from '../../src/recovery/restore.ts'
import { writeBackup } from '../../src/recovery/backup.ts'
import { openSqliteStore } from '../../src/store/sqlite/index.ts'
import { MIGRATIONS } from '../../src/store/sqlite/migrations.ts'
import { createControlPlane, type ControlPlane } from '../support/control-plane.ts'
import { createSeededIds } from '../support/ids.ts'
import { load } from '../support/put-back.ts'
import { dice, LIVES, randomLife } from '../support/random-life.ts'

let cp: ControlPlane
let dir: string
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'holdfast-rebuild-'))
  cp = createControlPlane({
    images: {
      img: { files: { '/sandbox/seed.txt': 'seeded' } },
      declares: { volumes: ['/data'], files: { '/data/x': 'from the image' } },
    },
  })
  await cp.start()
})
afterEach(async () => {
  await cp.stop()
  rmSync(dir, { recursive: true })
})

const state = (): string => join(dir, 'state')
const ids = createSeededIds('rebuild')

function run(over: Partial<RebuildOptions> = {}): Promise<RebuildResult> {
  const engine = createSimulatedEngine(cp.world, { id: 'sim' })
  const base = { installation: null, dryRun: false, force: false, clock: cp.clock, ids }
  return rebuild({ stateDir: state(), engine, ...base, ...over })
}

/** The store is lost and rebuilt, and the control plane goes on with it. */
async function lose(): Promise<RebuildResult> {
  cp.crash()
  const result = await run()
  load(cp, join(state(), 'holdfast.db'))
  await cp.start()
  await cp.converge()
  return result
}

async function confirm(): Promise<void> {
  await cp.store.write(true, (tx) => tx.setMeta(HOLD_META, HOLD_LIFTED))
  cp.reconciler.kick(sweepKey('sim'))
  await cp.converge()
}

const containers = (): string[] =>
  [...cp.world.containers.values()].map((c) => `${c.name} ${c.id} ${c.state} ${c.startedAt}`).toSorted()
const volumeNames = (): string[] => [...cp.world.volumes.keys()].toSorted()

describe('a rebuilt store', () => {
  it('has the same ids, uids, names and specs; what runs runs on, and life goes on in the same instances', async () => {
    const run1 = await cp.add()
    const off = await cp.add({ desired: 'running' })
    for (const id of [run1, off]) await cp.reaches(id, 'Running')
    await cp.want(off, 'stopped')
    await cp.reaches(off, 'Stopped')
    const before = [await cp.get(run1), await cp.get(off)] as const
    const rows = await cp.volumes()
    const world = containers()
    const { installation } = cp.store

    const result = await lose()
    expect(result).toMatchObject({ installation, how: 'new', kept: null, left: [] })
    expect(result.sandboxes.map((s) => [s.record.id, s.exact])).toEqual([
      [run1, true],
      [off, true],
    ])
    expect(containers()).toEqual(world)
    expect(cp.store.installation).toBe(installation)
    for (const old of before) {
      const now = await cp.get(old.id)
      expect(now).toMatchObject({
        spec: old.spec,
        specHash: old.specHash,
        imageMounts: old.imageMounts,
        desired: old.desired,
        desiredReason: 'rebuilt',
        expiresAt: null,
        status: { phase: old.status.phase },
        instanceSeq: old.instanceSeq,
      })
      const { number, name, uid, engineId, startedAt } = old.instance ?? {}
      expect(now.instance).toMatchObject({ number, name, uid, engineId, startedAt })
    }
    for (const old of rows) {
      const now = (await cp.volumes()).find((v) => v.uid === old.uid)
      const { claim, physicalName, make, kind, owner, retention, state: was } = old
      expect(now).toMatchObject({
        claim,
        physicalName,
        make,
        kind,
        owner,
        retention,
        state: was,
        seed: 'seeded',
      })
    }

    await confirm()
    expect(containers()).toEqual(world)
    await cp.want(off, 'running')
    await cp.reaches(off, 'Running')
    expect(containers()).toHaveLength(2)
    for (const id of [run1, off]) await cp.want(id, 'deleted')
    await cp.converge()
    expect([containers(), volumeNames(), await cp.openSteps()]).toEqual([[], [], 0])
  })

  it('knows volumes for declared paths, and the volumes of others, for what they are', async () => {
    cp.behind.createVolume('theirs', { who: 'me' }, { '/f': 'theirs' })
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    await cp.change(id, (r) => {
      const spec = { ...r.spec, image: 'declares' }
      return { spec, specHash: specHash(spec), generation: r.generation + 1 }
    })
    await cp.converge()
    const old = await cp.get(id)
    expect(old.imageMounts).toHaveLength(1)
    await lose()
    const now = await cp.get(id)
    expect(now).toMatchObject({ spec: old.spec, imageMounts: old.imageMounts, specHash: old.specHash })
    expect((await cp.volumes()).map((v) => v.kind).toSorted()).toEqual(['image', 'workspace'])
    await confirm()
    await cp.want(id, 'deleted')
    await cp.converge()
    expect(volumeNames()).toEqual(['theirs'])
  })

  it('retains a volume whose labels do not say that it goes with its sandbox, and one without a sandbox', async () => {
    const kept = await cp.add({}, { retention: 'retain' })
    const gone = await cp.add()
    for (const id of [kept, gone]) await cp.reaches(id, 'Running')
    // Its instance was removed behind our back, and so nothing tells what it was.
    cp.behind.remove(`hf-${gone}-1`)
    const before = volumeNames()
    const { volumes } = await lose()
    expect(volumes.map((v) => [v.owner, v.retention])).toEqual([
      [kept, 'retain'],
      [null, 'retain'],
    ])
    await confirm()
    await cp.want(kept, 'deleted')
    await cp.converge()
    expect(volumeNames()).toEqual(before)
  })

  it('keeps the claim of a volume of others, also beside one of ours that would be called the same', async () => {
    const gone = await cp.add()
    await cp.reaches(gone, 'Running')
    cp.behind.remove(`hf-${gone}-1`)
    cp.behind.createVolume('workspace', { who: 'me' }, { '/f': 'theirs' })
    const engineCreatedAt = cp.world.volumes.get('workspace')?.createdAt ?? 0
    const id = await cp.add(
      {},
      {
        claim: 'workspace',
        physicalName: 'workspace',
        kind: 'claim',
        managed: false,
        owner: null,
        retention: 'retain',
        seed: 'none',
        state: 'ready',
        engineCreatedAt,
      },
    )
    await cp.reaches(id, 'Running')
    const ours = volumeNames().find((name) => name !== 'workspace') ?? ''
    await lose()
    const claims = (await cp.volumes()).map((v) => [v.managed, v.claim, v.physicalName])
    expect(claims.toSorted((a, b) => String(a).localeCompare(String(b)))).toEqual([
      [false, 'workspace', 'workspace'],
      [true, ours, ours],
    ])
    expect((await cp.get(id)).status.phase).toBe('Running')
  })

  it('removes nothing and stops nothing until it is confirmed', async () => {
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    await lose()
    const world = containers()
    await cp.want(id, 'deleted')
    await cp.converge()
    expect(containers()).toEqual(world)
    await confirm()
    expect(containers()).toEqual([])
  })

  it('leaves the objects of others and of another installation as they are', async () => {
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    cp.behind.createForeign({ name: 'theirs', image: 'img' })
    const ours = cp.world.find(`hf-${id}-1`)
    // As an image committed from a sandbox brings them: our labels under another name.
    cp.behind.createForeign({ name: 'committed', image: 'img', labels: { ...ours?.request.labels } })
    const world = containers()
    const { sandboxes } = await lose()
    expect(sandboxes.map((s) => s.record.id)).toEqual([id])
    await confirm()
    expect(containers()).toEqual(world)
  })
})

describe('a rebuild', () => {
  it('as a dry run tells what it would make, and makes nothing', async () => {
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    const effects = cp.world.mutations()
    const { sandboxes, how, unknown } = await run({ dryRun: true })
    expect([sandboxes.map((s) => s.record.id), how]).toEqual([[id], 'dry-run'])
    expect(unknown.join()).toContain('expiry')
    expect(existsSync(state())).toBe(false)
    expect(cp.world.mutations()).toBe(effects)
  })

  it('asks which one when there are several installations, and finds none where there is none', async () => {
    await expect(run()).rejects.toMatchObject({ code: 'NOTHING_TO_REBUILD', exitCode: 3 })
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    const other = createControlPlane({ seed: 'other' })
    const theirs = await other.add()
    await other.start()
    await other.reaches(theirs, 'Running')
    for (const [k, v] of other.world.containers) cp.world.containers.set(k, v)
    await expect(run()).rejects.toMatchObject({ code: 'SEVERAL_INSTALLATIONS', exitCode: 4 })
    const { sandboxes } = await run({ installation: other.store.installation })
    expect(sandboxes.map((s) => s.record.id)).toEqual([theirs])
    await expect(run({ installation: 'none', force: true })).rejects.toMatchObject({
      code: 'NOTHING_TO_REBUILD',
    })
    await other.stop()
  })

  it('refuses a store that can be read, keeps one that cannot, and keeps the key', async () => {
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    await (await openSqliteStore({ dir: state(), clock: cp.clock, ids })).close()
    await expect(run()).rejects.toMatchObject({ code: 'STATE_NOT_EMPTY' })
    const { kept } = await run({ force: true })
    expect(readdirSync(kept ?? '').toSorted()).toEqual(['holdfast.db', 'secret.key'])
    writeFileSync(join(state(), 'holdfast.db'), 'a diary')
    writeFileSync(join(state(), 'secret.key'), Buffer.alloc(32, 7))
    cp.clock.jump(5_000)
    const again = await run()
    expect(again.kept).not.toBe(kept)
    const store = await openSqliteStore({ dir: state(), clock: cp.clock, ids })
    expect((await store.read((tx) => tx.sandboxes({}))).total).toBe(1)
    expect(readdirSync(state()).filter((n) => n.startsWith('restoring-'))).toEqual([])
    await expect(run({ force: true })).rejects.toMatchObject({ code: 'STATE_LOCKED' })
    await store.close()
  })

  it('adds nothing to a store whose hold a person ended while the engine was looked at', async () => {
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    await run()
    const fresh = await cp.add()
    await cp.reaches(fresh, 'Running')
    const inner = createSimulatedEngine(cp.world, { id: 'sim' })
    const engine: Engine = {
      ...inner,
      listVolumes: async (call) => {
        const store = await openSqliteStore({ dir: state(), clock: cp.clock, ids })
        await store.write(true, (tx) => tx.setMeta(HOLD_META, HOLD_LIFTED))
        await store.close()
        return inner.listVolumes(call)
      },
    }
    await expect(run({ engine })).rejects.toMatchObject({ code: 'STATE_NOT_EMPTY' })
    const store = await openSqliteStore({ dir: state(), clock: cp.clock, ids })
    expect((await store.read((tx) => tx.sandboxes({}))).items.map((r) => r.id)).toEqual([id])
    await store.close()
  })

  it('takes a store of a newer version for no damage: it is replaced with force only', async () => {
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    await (await openSqliteStore({ dir: state(), clock: cp.clock, ids })).close()
    const newer = new DatabaseSync(join(state(), 'holdfast.db'))
    newer.exec(`PRAGMA user_version = ${MIGRATIONS.length + 1}`)
    newer.close()
    for (const dryRun of [true, false])
      await expect(run({ dryRun })).rejects.toMatchObject({ code: 'STORE_TOO_NEW' })
    expect(readdirSync(state()).filter((n) => n.startsWith('replaced-'))).toEqual([])
    expect((await run({ force: true })).kept).not.toBeNull()
  })

  it('takes a file that may not be read for no damage', async () => {
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    mkdirSync(join(state(), 'holdfast.db'), { recursive: true })
    await expect(run()).rejects.toMatchObject({ code: 'STORE_FAILED' })
    expect(readdirSync(state()).filter((n) => n.startsWith('replaced-'))).toEqual([])
  })

  it('adds to a restored store what it does not know, and keeps what only it knows', async () => {
    const old = await cp.add({ name: 'old', metadata: { a: 'b' }, expiresAt: cp.clock.now() + 10_000_000 })
    await cp.reaches(old, 'Running')
    mkdirSync(state())
    const files = join(dir, 'first')
    mkdirSync(files)
    cp.store.database.prepare('VACUUM INTO ?').run(join(files, 'holdfast.db'))
    const { path } = await writeBackup({
      stateDir: files,
      target: dir,
      force: false,
      clock: cp.clock,
      version: '1',
    })
    const fresh = await cp.add()
    await cp.reaches(fresh, 'Running')
    await cp.change(old, (r) => {
      const spec = { ...r.spec, env: { NEW: '1' } }
      return { spec, specHash: specHash(spec), generation: r.generation + 1 }
    })
    await cp.converge()
    const world = containers()

    await restoreBackup({ stateDir: state(), source: path, force: false, clock: cp.clock })
    load(cp, join(state(), 'holdfast.db'))
    await cp.start()
    await cp.converge()
    expect((await cp.get(old)).instance?.number).toBe(1)
    // The server has quarantined what is newer; the store on disk is what it stopped with.
    cp.crash()
    rmSync(join(state(), 'holdfast.db'))
    cp.store.database.prepare('VACUUM INTO ?').run(join(state(), 'holdfast.db'))
    const result = await run()
    expect(result).toMatchObject({ how: 'merged', merged: { added: [fresh], renewed: [old] } })
    load(cp, join(state(), 'holdfast.db'))
    await cp.start()
    await cp.converge()
    expect(await cp.get(old)).toMatchObject({
      name: 'old',
      metadata: { a: 'b' },
      expiresAt: expect.any(Number),
      instance: { number: 2 },
      spec: { env: { NEW: '1' } },
      status: { phase: 'Running' },
    })
    expect(await cp.store.read((tx) => tx.quarantine())).toEqual([])
    await confirm()
    expect(containers()).toEqual(world)
    for (const id of [old, fresh]) await cp.want(id, 'deleted')
    await cp.converge()
    expect([containers(), volumeNames()]).toEqual([[], []])
  })
})

describe('any life, rebuilt after any moment of it', () => {
  it.each(Array.from({ length: LIVES }, (_, n) => n + 1))('life %i', async (seed) => {
    await cp.stop()
    cp = createControlPlane({ seed: `rebuilt-${seed}` })
    const roll = dice(seed)
    await cp.start()
    await randomLife(cp, roll)(10 + roll(20))
    cp.crash()
    await cp.clock.settle()
    const world = { containers: containers(), volumes: volumeNames() }
    if ((await installed()) === 0) return
    await lose()
    expect({ containers: containers(), volumes: volumeNames() }).toEqual(world)
    const effects = cp.world.mutations()
    await confirm()
    await cp.converge()
    expect({ containers: containers(), volumes: volumeNames() }).toEqual(world)
    expect([cp.world.mutations(), await cp.openSteps()]).toEqual([effects, 0])
    // Life goes on: what was found can be started, on the volumes that it had.
    for (const { id } of (await cp.store.read((tx) => tx.sandboxes({}))).items) {
      await cp.change(id, (r) => ({
        desired: 'running',
        desiredReason: 'user',
        desiredAt: cp.clock.now(),
        startAsked: true,
        generation: r.generation + 1,
      }))
      await cp.reaches(id, 'Running')
      await cp.want(id, 'deleted')
    }
    await cp.converge()
    expect(containers().filter((c) => !world.containers.includes(c))).toEqual([])
  })
})

/** Objects that a rebuild could go by. */
async function installed(): Promise<number> {
  return cp.world.containers.size + cp.world.volumes.size
}
