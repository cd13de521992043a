import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { epochAfter, type Hold } from '../../src/model/hold.ts'
import { copyDatabase, markHeld } from '../../src/store/sqlite/copy.ts'
import type { ControlPlane } from './control-plane.ts'

/** Backups of a simulated control plane's store, which lives in memory. */
export interface Backups {
  /** What the store holds now. */
  of(cp: ControlPlane): string
  /** The control plane dies, and its store is as in the backup, held; it does not run yet. */
  putBack(cp: ControlPlane, backup: string): Hold
  clean(): void
}

/** The control plane dies, and its store is what the file holds; it does not run yet. */
export function load(cp: ControlPlane, file: string): void {
  cp.crash()
  const { database } = cp.store
  database.prepare('ATTACH ? AS backup').run(file)
  const tables = database
    .prepare("SELECT name FROM backup.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_stat%'")
    .all() as { name: string }[]
  for (const { name } of tables) {
    database.exec(`DELETE FROM main.${name}`)
    database.exec(`INSERT INTO main.${name} SELECT * FROM backup.${name}`)
  }
  database.exec('DETACH backup')
  // Under the epoch of that store.
  cp.crash()
}

export function createBackups(): Backups {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-backups-'))
  let count = 0
  const next = (): string => join(dir, `${++count}.db`)
  return {
    of(cp) {
      const file = next()
      cp.store.database.prepare('VACUUM INTO ?').run(file)
      return file
    },
    putBack(cp, backup) {
      const now = cp.clock.now()
      const hold: Hold = { reason: 'restored', since: now, backupAt: now }
      const file = next()
      copyDatabase(backup, file)
      markHeld(file, epochAfter(cp.store.epoch, now), hold, 'restored')
      load(cp, file)
      return hold
    },
    clean: () => rmSync(dir, { recursive: true, force: true }),
  }
}
