/**
 * `node scripts/fixture-db.ts`: writes `test/fixtures/store-vN.db`, a small database of the newest schema version, with
 * a row of each kind. Run it once when a migration is added and never again for that version: the point of a fixture is
 * that it was written by the code of its time.
 */
import { existsSync, mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { fileURLToPath } from 'node:url'
import { markHeld } from '../src/store/sqlite/copy.ts'
import { MIGRATIONS } from '../src/store/sqlite/migrations.ts'
import { memoryStore } from '../src/store/sqlite/testing.ts'
import { fillFixture, fixtureClock, fixtureIds, HELD_SINCE } from '../test/support/fixture-rows.ts'

const file = join(
  fileURLToPath(new URL('../test/fixtures/', import.meta.url)),
  `store-v${MIGRATIONS.length}.db`,
)
if (existsSync(file)) {
  console.error(`${file} exists. A fixture is written once, by the code of its time.`)
  process.exit(1)
}
mkdirSync(dirname(file), { recursive: true })
const store = memoryStore(fixtureClock, fixtureIds())
await fillFixture(store)
store.database.prepare('VACUUM INTO ?').run(file)
await store.close()
markHeld(file, 7, { reason: 'restored', since: HELD_SINCE, backupAt: null }, 'fixture')
const { page_count: pages } = new DatabaseSync(file, { readOnly: true })
  .prepare('PRAGMA page_count')
  .get() as {
  page_count: number
}
console.log(`${file} is written: ${pages} pages.`)
