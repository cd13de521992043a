import { copyFileSync, existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, test } from 'vitest'
import { openSqliteStore } from '../../src/store/sqlite/index.ts'
import { MIGRATIONS } from '../../src/store/sqlite/migrations.ts'
import { FIXTURE_INSTALLATION, HELD_SINCE } from '../support/fixture-rows.ts'
import { realClock, realIds } from './store-support/fixtures.ts'
import { scratch } from './store-support/process.ts'

const made = scratch()
afterEach(() => made.clean())

const fixture = (version: number): string =>
  fileURLToPath(new URL(`../fixtures/store-v${version}.db`, import.meta.url))
const versions = MIGRATIONS.map((_, i) => i + 1)

describe.each(versions)('a database of schema version %i', (version) => {
  test('has a fixture, written by the code of its time', () => {
    const how = 'run `node scripts/fixture-db.ts` in the commit that adds the migration, and commit the file'
    expect([existsSync(fixture(version)), how]).toEqual([true, how])
  })

  test('opens and migrates, with every row of it readable and as it was', async () => {
    const dir = made.dir()
    mkdirSync(dir, { mode: 0o700 })
    copyFileSync(fixture(version), join(dir, 'holdfast.db'))
    const store = await openSqliteStore({ dir, clock: realClock, ids: realIds })
    made.later(() => store.close())
    expect([store.installation, store.epoch]).toEqual([FIXTURE_INSTALLATION, 8])
    await store.read(async (tx) => {
      expect(await tx.corruptRows()).toEqual([])
      expect((await tx.sandboxes({ includeDeleted: true })).items.map((s) => s.id).toSorted()).toEqual([
        'full',
        'gone',
        'plain',
      ])
      expect(await tx.sandboxByName('full-name')).toMatchObject({
        id: 'full',
        spec: { limits: { cpuMillis: 250, memoryBytes: 1 << 20, pids: 12 }, workingDir: '/w', user: '1000' },
        restartPolicy: { kind: 'on-failure', max: 3 },
        metadata: { team: 'a', note: 'b c' },
        instance: { number: 1, engineId: 'e1', run: { engine: 'r1', boot: 'b1' } },
        lastExit: { code: 137, class: 'engine' },
        backoff: { attempts: 2 },
        breaker: { reason: 'often' },
      })
      expect((await tx.sandboxes({ metadata: { team: 'a' } })).items.map((s) => s.id)).toEqual(['full'])
      expect((await tx.sandboxesExpiredAt(9_000)).map((s) => s.id)).toEqual(['full'])
      expect(await tx.volume('v1')).toMatchObject({ make: 2, discarded: ['v1-old'], retention: 'delete' })
      expect(await tx.volume('v2')).toMatchObject({ state: 'removing', purge: { by: 'user', at: 2_000 } })
      expect((await tx.holdersOf('v2')).map((s) => s.id)).toEqual(['full'])
      expect((await tx.volumes({ includeRemoved: true })).total).toBe(3)
      expect(await tx.openSteps('sandbox/full')).toMatchObject([
        { step: { kind: 'create-instance', uid: 'i2' } },
      ])
      expect(await tx.journal('sandbox/full', 9)).toHaveLength(2)
      expect(await tx.lastEventSeq()).toBe(2)
      expect(await tx.tombstone('gone')).toMatchObject({ kind: 'sandbox' })
      expect(await tx.quarantine()).toHaveLength(1)
      expect(await tx.idempotency('k')).toMatchObject({ status: 202 })
      expect(await tx.apiKeys()).toHaveLength(1)
      expect(await tx.hold()).toEqual({ reason: 'restored', since: HELD_SINCE, backupAt: null })
    })
    // And it can be written to, by what writes rows now.
    await store.write(true, async (tx) => {
      const row = await tx.sandbox('full')
      if (row === null) throw new Error('full is gone')
      expect(await tx.updateSandbox({ ...row, name: 'renamed' })).toBe(true)
    })
  })
})

test('no fixture is of a version that does not exist', () => {
  expect(existsSync(fixture(MIGRATIONS.length + 1))).toBe(false)
})
