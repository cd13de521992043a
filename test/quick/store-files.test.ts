import { createHash } from 'node:crypto'
import {
  chmodSync,
  cpSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, describe, expect, test } from 'vitest'
import type { HoldfastError } from '../../src/model/errors.ts'
import { openSqliteStore } from '../../src/store/sqlite/index.ts'
import type { SqliteStoreOptions } from '../../src/store/sqlite/index.ts'
import { MIGRATIONS } from '../../src/store/sqlite/migrations.ts'
import type { Store } from '../../src/store/store.ts'
import { realClock, realIds, sandboxRecord } from './store-support/fixtures.ts'
import { scratch } from './store-support/process.ts'

const made = scratch()
afterEach(() => made.clean())

async function open(dir: string, more: Partial<SqliteStoreOptions> = {}): Promise<Store> {
  const store = await openSqliteStore({ dir, clock: realClock, ids: realIds, ...more })
  made.later(() => store.close())
  return store
}

/** Every file with its bytes, its mode and its time of change. */
function snapshot(dir: string): Record<string, string> {
  const out: Record<string, string> = {}
  for (const name of readdirSync(dir)) {
    const found = statSync(join(dir, name))
    out[name] = `${found.mode} ${found.mtimeMs} ${createHash('sha256')
      .update(readFileSync(join(dir, name)))
      .digest('hex')}`
  }
  return out
}

const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8)

describe('the state directory', () => {
  test('is made for its owner only, and so is everything in it', async () => {
    const dir = made.dir()
    const store = await open(dir)
    await store.write(true, (tx) => tx.setMeta('a', '1'))
    expect(modeOf(dir)).toBe('700')
    const names = readdirSync(dir).toSorted()
    expect(names).toEqual([
      'holdfast.db',
      'holdfast.db-shm',
      'holdfast.db-wal',
      'lock.db',
      'lock.json',
      'secret.key',
    ])
    for (const name of names) expect([name, modeOf(join(dir, name))]).toEqual([name, '600'])
    expect(statSync(join(dir, 'secret.key')).size).toBe(32)
  })

  test('one that is open to others is closed, unless it held other things first', async () => {
    const own = made.dir()
    mkdirSync(own)
    chmodSync(own, 0o755)
    await open(own)
    expect(modeOf(own)).toBe('700')
    const shared = made.dir()
    mkdirSync(shared)
    chmodSync(shared, 0o755)
    writeFileSync(join(shared, 'notes'), 'mine')
    await open(shared)
    expect(modeOf(shared)).toBe('755')
    expect(modeOf(join(shared, 'holdfast.db'))).toBe('600')
  })

  test('data, installation and key outlive a close; the epoch grows', async () => {
    const dir = made.dir()
    const first = await open(dir)
    await first.write(true, (tx) => tx.insertSandbox(sandboxRecord({ id: 'a1' })))
    const key = readFileSync(join(dir, 'secret.key'))
    await first.close()
    expect(readdirSync(dir).toSorted()).toEqual(['holdfast.db', 'lock.db', 'secret.key'])
    const second = await open(dir)
    expect([second.installation, second.epoch]).toEqual([first.installation, first.epoch + 1])
    expect((await second.read((tx) => tx.sandbox('a1')))?.id).toBe('a1')
    expect(readFileSync(join(dir, 'secret.key'))).toEqual(key)
  })

  test('a file that is no database, and a damaged key, are left as they are', async () => {
    const dir = made.dir()
    mkdirSync(dir)
    writeFileSync(join(dir, 'holdfast.db'), 'a diary, not a database')
    await expect(open(dir)).rejects.toMatchObject({ code: 'STORE_FAILED' })
    expect(readFileSync(join(dir, 'holdfast.db'), 'utf8')).toBe('a diary, not a database')
    rmSync(join(dir, 'holdfast.db'))
    writeFileSync(join(dir, 'secret.key'), 'short')
    await expect(open(dir)).rejects.toThrow('secret.key')
    expect(readFileSync(join(dir, 'secret.key'), 'utf8')).toBe('short')
  })

  test('a path that cannot be a directory is named', async () => {
    const dir = made.dir()
    writeFileSync(dir, '')
    await expect(open(join(dir, 'below'))).rejects.toMatchObject({ code: 'STORE_FAILED' })
  })
})

describe('the lock', () => {
  test('a second process is refused, the holder is named, and nothing changes', async () => {
    const dir = made.dir()
    const child = made.child('hold', dir)
    await child.seen(1)
    const before = snapshot(dir)
    const error = await open(dir).catch((e: unknown) => e as HoldfastError)
    expect(error).toMatchObject({ code: 'STATE_LOCKED', exitCode: 4 })
    expect((error as Error).message).toContain(`process ${child.pid} on ${hostname()}`)
    expect(snapshot(dir)).toEqual(before)
    await child.kill()
    expect((await open(dir)).epoch).toBe(2)
  })

  test('a second store in this process is refused, and the first one keeps its lock', async () => {
    const dir = made.dir()
    const store = await open(dir)
    await expect(open(dir)).rejects.toMatchObject({ code: 'STATE_LOCKED' })
    await expect(open(dir)).rejects.toMatchObject({ code: 'STATE_LOCKED' })
    const child = made.child('hold', dir)
    await expect(child.seen(1)).rejects.toThrow('STATE_LOCKED')
    store.assertFence()
    await store.write(true, (tx) => tx.setMeta('a', '1'))
  })
})

describe('fencing', () => {
  test('when another process takes over past a lost lock file, the older one writes nothing more', async () => {
    const dir = made.dir()
    const seen: HoldfastError[] = []
    const store = await open(dir, { onFenced: (error) => seen.push(error) })
    store.assertFence()
    rmSync(join(dir, 'lock.db'))
    const child = made.child('hold', dir)
    await child.seen(1)
    expect(() => store.assertFence()).toThrow('no longer holds')
    await expect(store.write(true, (tx) => tx.setMeta('late', '1'))).rejects.toMatchObject({ code: 'FENCED' })
    expect(seen.map((e) => e.code)).toEqual(['FENCED'])
    // Also with the lock file back in place the epoch tells.
    await child.kill()
    expect(await store.read((tx) => tx.meta('late'))).toBeNull()
    expect(await store.read((tx) => tx.meta('epoch'))).toBe('2')
  })

  test('the epoch is checked inside the transaction, and the error names the newer one', async () => {
    const dir = made.dir()
    const store = await open(dir)
    const other = new DatabaseSync(join(dir, 'holdfast.db'))
    made.later(() => other.close())
    other.exec("UPDATE meta SET value = '9' WHERE key = 'epoch'")
    const fenced = { code: 'FENCED', exitCode: 4, details: { mine: 1, current: 9 } }
    let called = false
    const write = store.write(true, async (tx) => {
      called = true
      await tx.setMeta('late', '1')
    })
    await expect(write).rejects.toMatchObject(fenced)
    expect(called).toBe(false)
    expect(() => store.assertFence()).toThrow('epoch 9')
  })

  test('a directory put in the place of the open one fences', async () => {
    const dir = made.dir()
    const store = await open(dir)
    await store.write(true, (tx) => tx.setMeta('a', '1'))
    cpSync(dir, `${dir}.copy`, { recursive: true })
    renameSync(dir, `${dir}.old`)
    expect(() => store.assertFence()).toThrow('no longer holds')
    renameSync(`${dir}.copy`, dir)
    expect(() => store.assertFence()).toThrow('no longer holds')
    await expect(store.write(true, (tx) => tx.setMeta('b', '1'))).rejects.toMatchObject({ code: 'FENCED' })
    const next = await open(dir)
    expect(next.epoch).toBe(store.epoch + 1)
    expect(await next.read((tx) => tx.meta('a'))).toBe('1')
    await store.close()
    next.assertFence()
    await expect(open(dir)).rejects.toThrow(`process ${process.pid}`)
  })

  test('a closed store no longer holds anything', async () => {
    const store = await open(made.dir())
    await store.close()
    expect(() => store.assertFence()).toThrow('no longer holds')
  })
})

describe('kill -9', () => {
  test('every acknowledged row is there, whole, and the lock is free at once', async () => {
    const dir = made.dir()
    const acked: string[] = []
    for (let round = 1; round <= 3; round++) {
      const child = made.child('write', dir)
      await child.seen(20 * round)
      await child.kill()
      expect(child.lines[0]).toBe(`ready ${round}`)
      acked.push(...child.lines.slice(1).map((line) => line.replace('ack ', '')))
    }
    const store = await open(dir)
    const page = await store.read((tx) => tx.sandboxes({}))
    const ids = new Set(page.items.map((r) => r.id))
    expect(acked.filter((id) => !ids.has(id))).toEqual([])
    // At most the one that was being acknowledged in each round is there beyond them, and its event with it.
    expect(ids.size - acked.length).toBeLessThanOrEqual(3)
    const events = await store.read((tx) => tx.events({ limit: 100_000 }))
    expect(new Set(events.map((e) => e.id))).toEqual(ids)
    expect(await store.read((tx) => tx.corruptRows())).toEqual([])
    await store.close()
    const database = new DatabaseSync(join(dir, 'holdfast.db'))
    made.later(() => database.close())
    expect(database.prepare('PRAGMA integrity_check').get()).toEqual({ integrity_check: 'ok' })
  })
})

describe('migrations', () => {
  const next = [...MIGRATIONS, 'CREATE TABLE later (x INTEGER); INSERT INTO later VALUES (7)']

  test('an older database is brought forward with its data, once', async () => {
    const dir = made.dir()
    const child = made.child('write', dir)
    await child.seen(5)
    await child.kill()
    const store = await open(dir, { migrations: next })
    expect((await store.read((tx) => tx.sandboxes({}))).total).toBeGreaterThanOrEqual(4)
    await store.close()
    await (await open(dir, { migrations: next })).close()
    const database = new DatabaseSync(join(dir, 'holdfast.db'), { readOnly: true })
    expect(database.prepare('SELECT x FROM later').all()).toEqual([{ x: 7 }])
    database.close()
  })

  test('one that fails leaves the version and the data before it', async () => {
    const dir = made.dir()
    const store = await open(dir)
    await store.write(true, (tx) => tx.setMeta('a', '1'))
    await store.close()
    const broken = [...next, 'CREATE TABLE half (x INTEGER); INSERT INTO nowhere VALUES (1)']
    await expect(open(dir, { migrations: broken })).rejects.toMatchObject({ code: 'STORE_FAILED' })
    const database = new DatabaseSync(join(dir, 'holdfast.db'), { readOnly: true })
    expect(database.prepare('PRAGMA user_version').get()).toEqual({ user_version: next.length })
    expect(database.prepare("SELECT name FROM sqlite_schema WHERE name = 'half'").all()).toEqual([])
    database.close()
    expect(await (await open(dir, { migrations: next })).read((tx) => tx.meta('a'))).toBe('1')
  })

  test('a newer database is refused, and not a byte, file or time changes', async () => {
    const dir = made.dir()
    const later = await open(dir, { migrations: next })
    await later.write(true, (tx) => tx.setMeta('a', '1'))
    await later.close()
    const check = async (): Promise<void> => {
      const before = snapshot(dir)
      const known = MIGRATIONS.length
      await expect(open(dir)).rejects.toMatchObject({
        code: 'STORE_TOO_NEW',
        details: { found: known + 1, known, path: join(dir, 'holdfast.db') },
      })
      expect(snapshot(dir)).toEqual(before)
    }
    await check()
    for (const name of ['lock.db', 'secret.key']) rmSync(join(dir, name))
    await check()
  })

  test('a newer database is refused as well while its last writes are only in the log', async () => {
    const dir = made.dir()
    const later = await open(dir, { migrations: next })
    await later.write(true, (tx) => tx.setMeta('a', '1'))
    const crashed = made.dir()
    cpSync(dir, crashed, { recursive: true })
    const before = snapshot(crashed)
    expect(Object.keys(before)).toContain('holdfast.db-wal')
    await expect(open(crashed)).rejects.toMatchObject({ code: 'STORE_TOO_NEW' })
    expect(snapshot(crashed)).toEqual(before)
  })
})

describe('isolation', () => {
  test('a read beside an open write sees only what was committed, and does not wait for it', async () => {
    const store = await open(made.dir())
    let go: () => void = () => undefined
    const gate = new Promise<void>((resolve) => {
      go = resolve
    })
    const writing = store.write(true, async (tx) => {
      await tx.setMeta('a', '1')
      await gate
    })
    await new Promise((resolve) => setImmediate(resolve))
    expect(await store.read((tx) => tx.meta('a'))).toBeNull()
    go()
    await writing
    expect(await store.read((tx) => tx.meta('a'))).toBe('1')
  })

  test("a foreign tool's lock fails the write and not the store", async () => {
    const dir = made.dir()
    const store = await open(dir)
    const tool = new DatabaseSync(join(dir, 'holdfast.db'))
    made.later(() => tool.close())
    tool.exec('BEGIN IMMEDIATE')
    await expect(store.write(true, (tx) => tx.setMeta('a', '1'))).rejects.toMatchObject({
      code: 'STORE_FAILED',
    })
    tool.exec('ROLLBACK')
    await store.write(true, (tx) => tx.setMeta('a', '2'))
    expect(await store.read((tx) => tx.meta('a'))).toBe('2')
  })
})
