import { copyFileSync, existsSync, linkSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { exists, syncDir, type StateFiles } from './files.ts'

/** Beside the database while a process has it open, or after one was killed. */
const LOGS = ['-wal', '-shm'] as const

/** What a store consists of, on disk. `lock.db` is not part of it: whoever replaces a store holds it. */
export function storeParts(files: StateFiles): readonly string[] {
  return [files.database, ...LOGS.map((end) => files.database + end), files.key, join(files.dir, 'cli.key')]
}

/** True when the directory holds a store, or part of one that somebody may want back. */
export function holdsStore(files: StateFiles): boolean {
  return exists(files.database)
}

/**
 * Keeps the present store under a second name in `aside`, which must not exist. Nothing is missing at its own place
 * meanwhile, so that a crash leaves one whole store. By the holder of the lock, with no connection open.
 */
export function keepAside(files: StateFiles, aside: string): void {
  settleLog(files)
  mkdirSync(aside, { mode: 0o700 })
  for (const path of storeParts(files)) if (exists(path)) keep(path, join(aside, basename(path)))
  syncDir(aside)
  syncDir(files.dir)
}

/** A second name costs nothing and cannot be half done; where the file system has none, a copy does. */
function keep(from: string, to: string): void {
  try {
    linkSync(from, to)
  } catch {
    copyFileSync(from, to)
  }
}

/** Brings what is only in the log into the database. One that cannot be opened is kept with its log, as it is. */
function settleLog(files: StateFiles): void {
  if (!exists(files.database)) return
  try {
    const handle = new DatabaseSync(files.database, { timeout: 250 })
    try {
      handle.exec('PRAGMA wal_checkpoint(TRUNCATE)')
    } finally {
      handle.close()
    }
  } catch {
    // It is damaged, which is why it is being replaced: log and database stay together in what is kept.
  }
}

/** Puts the files of `staged` in place, the database last: it is what makes the others count. */
export function putInPlace(files: StateFiles, staged: string): void {
  // A log of the former database would be played into the new one.
  for (const end of LOGS) rmSync(files.database + end, { force: true })
  for (const path of [files.key, join(files.dir, 'cli.key'), files.database]) {
    const from = join(staged, basename(path))
    if (existsSync(from)) renameSync(from, path)
    else if (path !== files.key) rmSync(path, { force: true })
  }
  syncDir(files.dir)
}
