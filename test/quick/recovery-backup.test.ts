import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, describe, expect, test } from 'vitest'
import { decodeHold, HOLD_META } from '../../src/model/hold.ts'
import { writeBackup, type Backup } from '../../src/recovery/backup.ts'
import { restoreBackup, type Restored } from '../../src/recovery/restore.ts'
import { openSqliteStore } from '../../src/store/sqlite/index.ts'
import { MIGRATIONS } from '../../src/store/sqlite/migrations.ts'
import type { Store } from '../../src/store/store.ts'
import { realClock, realIds, sandboxRecord, volumeRecord } from './store-support/fixtures.ts'
import { scratch } from './store-support/process.ts'

const made = scratch()
afterEach(() => made.clean())

async function open(dir: string): Promise<Store> {
  const store = await openSqliteStore({ dir, clock: realClock, ids: realIds })
  made.later(() => store.close())
  return store
}

function dir(): string {
  const path = made.dir()
  mkdirSync(path)
  return path
}

const backup = (stateDir: string, target: string, force = false): Promise<Backup> =>
  writeBackup({ stateDir, target, force, clock: realClock, version: '9.9.9' })
const restore = (stateDir: string, source: string, force = false): Promise<Restored> =>
  restoreBackup({ stateDir, source, force, clock: realClock })

/** Every file below a directory with its bytes, its mode and its time of change. */
function snapshot(path: string): Record<string, string> {
  const out: Record<string, string> = {}
  for (const name of readdirSync(path, { recursive: true, encoding: 'utf8' })) {
    const found = statSync(join(path, name))
    const bytes = found.isFile()
      ? createHash('sha256')
          .update(readFileSync(join(path, name)))
          .digest('hex')
      : ''
    out[name] = `${found.mode} ${found.isFile() ? found.mtimeMs : ''} ${bytes}`
  }
  return out
}

async function fill(store: Store, ids: readonly string[]): Promise<void> {
  for (const id of ids)
    await store.write(true, async (tx) => {
      await tx.insertVolume(volumeRecord({ uid: `v${id}` }))
      await tx.insertSandbox(sandboxRecord({ id }))
      await tx.appendEvent({ subject: 'sandbox', id, type: 'Normal', reason: 'Made', message: '' }, 1)
    })
}

describe('a backup', () => {
  test('is taken beside the running server, whole, private and checked, and nothing else is left', async () => {
    const state = made.dir()
    const store = await open(state)
    await fill(store, ['a1', 'a2'])
    writeFileSync(join(state, 'cli.key'), 'hf_key\n', { mode: 0o600 })
    const target = dir()
    const { path, manifest } = await backup(state, target)
    expect(readdirSync(target)).toEqual([path.slice(target.length + 1)])
    expect(path).toMatch(new RegExp(`holdfast-${store.installation}-\\d{8}T\\d{6}Z\\.tar$`))
    expect((statSync(path).mode & 0o777).toString(8)).toBe('600')
    expect(manifest).toMatchObject({
      holdfast: '9.9.9',
      installation: store.installation,
      epoch: 1,
      schemaVersion: MIGRATIONS.length,
      sandboxes: 2,
      volumes: 2,
      lastEventSeq: 2,
    })
    expect(manifest.files.map((f) => f.name)).toEqual(['holdfast.db', 'secret.key', 'cli.key'])
    // The server was not disturbed, and holds what it held.
    store.assertFence()
    await fill(store, ['a3'])
  })

  test('holds one moment of a store that is being written to by another process', async () => {
    const state = made.dir()
    const child = made.child('write', state)
    await child.seen(5)
    for (let n = 0; n < 5; n++) {
      const file = join(dir(), 'b.tar')
      const { manifest } = await backup(state, file)
      // Each transaction of the writer makes one sandbox and one event: no backup holds half of one.
      expect([n, manifest.lastEventSeq]).toEqual([n, manifest.sandboxes])
      const after = child.lines.length
      await child.seen(after + 1)
    }
    await child.kill()
  })

  test('of a state directory whose server was killed has what was acknowledged, and changes nothing in it', async () => {
    const state = made.dir()
    const child = made.child('write', state)
    await child.seen(20)
    await child.kill()
    const before = snapshot(state)
    expect(Object.keys(before)).toContain('holdfast.db-wal')
    const { manifest } = await backup(state, join(dir(), 'b.tar'))
    expect(manifest.sandboxes).toBeGreaterThanOrEqual(19)
    const after = snapshot(state)
    // The index of the log is rebuilt by any reader; it holds no data.
    for (const map of [before, after]) delete map['holdfast.db-shm']
    expect(after).toEqual(before)
  })

  test('is not written over a file without force, and with it only once it is whole', async () => {
    const state = made.dir()
    await fill(await open(state), ['a1'])
    const file = join(dir(), 'b.tar')
    writeFileSync(file, 'precious')
    await expect(backup(state, file)).rejects.toMatchObject({ code: 'BACKUP_EXISTS', exitCode: 4 })
    expect(readFileSync(file, 'utf8')).toBe('precious')
    expect((await backup(state, file, true)).manifest.sandboxes).toBe(1)
    await expect(backup(made.dir(), file, true)).rejects.toMatchObject({ code: 'STATE_EMPTY', exitCode: 3 })
    expect(statSync(file).size).toBeGreaterThan(1000)
  })

  test('of a damaged database is refused, and leaves the older one as it is', async () => {
    const state = made.dir()
    const store = await open(state)
    await fill(
      store,
      Array.from({ length: 200 }, (_, n) => `s${n}`),
    )
    await store.close()
    const file = join(dir(), 'b.tar')
    await backup(state, file)
    const before = readFileSync(file)
    truncateSync(join(state, 'holdfast.db'), 20_000)
    await expect(backup(state, file, true)).rejects.toMatchObject({ code: 'BACKUP_FAILED' })
    expect(readFileSync(file)).toEqual(before)
    expect(readdirSync(join(file, '..'))).toEqual(['b.tar'])
  })

  test('of a database of a newer version is refused', async () => {
    const state = made.dir()
    await (await open(state)).close()
    const database = new DatabaseSync(join(state, 'holdfast.db'))
    database.exec(`PRAGMA user_version = ${MIGRATIONS.length + 1}`)
    database.close()
    const target = dir()
    await expect(backup(state, target)).rejects.toMatchObject({ code: 'STORE_TOO_NEW' })
    expect(readdirSync(target)).toEqual([])
  })
})

describe('a restore', () => {
  test('brings rows, installation and keys back, under a newer epoch and held', async () => {
    const state = made.dir()
    const store = await open(state)
    await fill(store, ['a1', 'a2'])
    writeFileSync(join(state, 'cli.key'), 'hf_key\n', { mode: 0o600 })
    const key = readFileSync(join(state, 'secret.key'))
    const file = join(dir(), 'b.tar')
    const { manifest } = await backup(state, file)
    const to = made.dir()
    const done = await restore(to, file)
    expect(done).toMatchObject({ manifest, kept: null })
    expect(done.epoch).toBeGreaterThan(1_000_000_000)
    expect(readFileSync(join(to, 'secret.key'))).toEqual(key)
    expect(readFileSync(join(to, 'cli.key'), 'utf8')).toBe('hf_key\n')
    expect(readdirSync(to).toSorted()).toEqual(['cli.key', 'holdfast.db', 'lock.db', 'secret.key'])
    const again = await open(to)
    expect([again.installation, again.epoch]).toEqual([store.installation, done.epoch + 1])
    expect((await again.read((tx) => tx.sandboxes({}))).total).toBe(2)
    expect(decodeHold(await again.read((tx) => tx.meta(HOLD_META)))).toEqual({
      reason: 'restored',
      since: expect.any(Number),
      backupAt: Date.parse(manifest.createdAt),
    })
    const [event] = await again.read((tx) => tx.events({ limit: 1, reverse: true }))
    expect(event).toMatchObject({ reason: 'Restored' })
  })

  test('who followed events past the backup goes on with those of the restored store', async () => {
    const state = made.dir()
    const store = await open(state)
    await fill(store, ['a1'])
    const file = join(dir(), 'b.tar')
    await backup(state, file)
    await fill(store, ['a2', 'a3', 'a4'])
    const last = await store.read((tx) => tx.lastEventSeq())
    await store.close()
    await restore(state, file, true)
    const again = await open(state)
    await fill(again, ['a5'])
    const later = await again.read((tx) => tx.events({ afterSeq: last, limit: 10 }))
    expect(later.map((e) => e.reason)).toEqual(['Restored', 'Made'])
    expect(later.every((e) => Number.isSafeInteger(e.seq))).toBe(true)
  })

  test('is refused while a server has the state directory, and over a store without force', async () => {
    const state = made.dir()
    const store = await open(state)
    await fill(store, ['a1'])
    const file = join(dir(), 'b.tar')
    await backup(state, file)
    await expect(restore(state, file, true)).rejects.toMatchObject({ code: 'STATE_LOCKED', exitCode: 4 })
    store.assertFence()
    await store.close()
    await expect(restore(state, file)).rejects.toMatchObject({ code: 'STATE_NOT_EMPTY', exitCode: 4 })
    expect((await open(state)).epoch).toBe(2)
  })

  test('with force keeps the former store whole beside it, with what was only in its log', async () => {
    const state = made.dir()
    const first = await open(state)
    await fill(first, ['a1'])
    const file = join(dir(), 'b.tar')
    await backup(state, file)
    await first.close()
    const child = made.child('write', state)
    await child.seen(10)
    await child.kill()
    const { kept, epoch } = await restore(state, file, true)
    expect(kept).toMatch(/replaced-\d{8}T\d{6}Z$/)
    expect((await (await open(state)).read((tx) => tx.sandboxes({}))).items.map((r) => r.id)).toEqual(['a1'])
    const former = new DatabaseSync(join(kept ?? '', 'holdfast.db'), { readOnly: true })
    made.later(() => former.close())
    const { n, e } = former
      .prepare("SELECT count(*) AS n, (SELECT value FROM meta WHERE key = 'epoch') AS e FROM sandboxes")
      .get() as { n: number; e: string }
    expect(n).toBeGreaterThanOrEqual(10)
    expect(epoch).toBeGreaterThan(Number(e))
  })

  test.each([
    ['nothing moved yet', [], false],
    ['the key moved', ['secret.key'], false],
    ['all moved', ['secret.key', 'holdfast.db'], true],
  ] as const)('cut off with %s is finished by whoever opens it next', async (_how, moved, logMayStay) => {
    const [former, next] = [made.dir(), made.dir()]
    for (const [state, id] of [
      [former, 'old'],
      [next, 'new'],
    ] as const) {
      const store = await open(state)
      await fill(store, [id])
      await store.close()
    }
    const pending = join(former, 'replacement')
    mkdirSync(pending)
    for (const name of ['secret.key', 'holdfast.db'])
      renameSync(join(next, name), join(moved.some((m) => m === name) ? former : pending, name))
    // The former one's log: played into the new database it would damage it.
    if (!logMayStay) writeFileSync(join(former, 'holdfast.db-wal'), 'of the former one')
    const store = await open(former)
    expect((await store.read((tx) => tx.sandboxes({}))).items.map((r) => r.id)).toEqual(['new'])
    expect(existsSync(pending)).toBe(false)
  })

  test('a store damaged beyond reading is replaced with force, and kept as it was', async () => {
    const state = made.dir()
    const store = await open(state)
    await fill(store, ['a1'])
    const file = join(dir(), 'b.tar')
    await backup(state, file)
    await store.close()
    writeFileSync(join(state, 'holdfast.db'), 'a diary, not a database')
    const { kept } = await restore(state, file, true)
    expect(readFileSync(join(kept ?? '', 'holdfast.db'), 'utf8')).toBe('a diary, not a database')
    expect((await (await open(state)).read((tx) => tx.sandboxes({}))).total).toBe(1)
  })

  test('of a file that was cut off, changed or never was a backup changes nothing', async () => {
    const state = made.dir()
    await fill(await open(state), ['a1'])
    const file = join(dir(), 'b.tar')
    await backup(state, file)
    const whole = readFileSync(file)
    const to = made.dir()
    const changed = Buffer.from(whole)
    const at = whole.indexOf('CREATE TABLE meta')
    changed.write('X', at)
    const cases: readonly (readonly [string, Buffer])[] = [
      ['cut', whole.subarray(0, whole.length / 2)],
      ['changed', changed],
      ['other', Buffer.from('a diary, not a backup')],
      ['empty', Buffer.alloc(0)],
    ]
    expect(at).toBeGreaterThan(0)
    for (const [name, bytes] of cases) {
      const bad = join(dir(), name)
      writeFileSync(bad, bytes)
      await expect(restore(to, bad), name).rejects.toMatchObject({ code: 'BACKUP_INVALID' })
      expect([name, readdirSync(to)]).toEqual([name, ['lock.db']])
    }
    await expect(restore(to, join(to, 'none'))).rejects.toMatchObject({ code: 'BACKUP_INVALID' })
    expect(existsSync(join(to, 'holdfast.db'))).toBe(false)
  })
})
