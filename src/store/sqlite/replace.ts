import {
  closeSync,
  constants,
  copyFileSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { exists, syncDir, type StateFiles } from './files.ts'

/** Beside the database while a process has it open, or after one was killed. */
const LOGS = ['-wal', '-shm'] as const

const CLI_KEY = 'cli.key'
/** A store that is to take the place of the present one, decided for good. */
const PENDING = 'replacement'
const WITHOUT_CLI_KEY = 'without-cli-key'

/** What a store consists of, on disk. `lock.db` is not part of it: whoever replaces a store holds it. */
export function storeParts(files: StateFiles): readonly string[] {
  return [files.database, ...LOGS.map((end) => files.database + end), files.key, join(files.dir, CLI_KEY)]
}

function syncFile(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** True when the directory holds a store, or part of one that somebody may want back. */
export function holdsStore(files: StateFiles): boolean {
  return exists(files.database)
}

/**
 * Keeps a copy of the present store in `aside`, which must not exist. A copy and not a second name: until the new store
 * is in place this one may be used again. By the holder of the lock, with no connection open.
 */
export function keepAside(files: StateFiles, aside: string): void {
  settleLog(files)
  mkdirSync(aside, { mode: 0o700 })
  for (const path of storeParts(files)) {
    if (!exists(path)) continue
    const copy = join(aside, basename(path))
    // Where the file system can share the blocks, it does.
    copyFileSync(path, copy, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE)
    syncFile(copy)
  }
  syncDir(aside)
  syncDir(files.dir)
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

/**
 * Makes the store in `staged` the one of this directory. It counts from one rename on: a crash before it leaves the
 * former store, and after it the next holder of the lock finishes what is left to do (`finishReplacement`).
 */
export function putInPlace(files: StateFiles, staged: string): void {
  // The former one's copy of a key opens nothing here. Noted, since a file that was moved already is missing, too.
  if (!exists(join(staged, CLI_KEY))) writeFileSync(join(staged, WITHOUT_CLI_KEY), '', { mode: 0o600 })
  for (const name of readdirSync(staged)) syncFile(join(staged, name))
  syncDir(staged)
  renameSync(staged, join(files.dir, PENDING))
  syncDir(files.dir)
  finishReplacement(files)
}

/** Finishes a replacement that was decided and not carried out to its end. By the holder of the lock, before it opens anything. */
export function finishReplacement(files: StateFiles): void {
  const pending = join(files.dir, PENDING)
  if (!exists(pending)) return
  // The database moves last: as long as it is here, log and keys beside the other one are the former store's.
  if (exists(join(pending, basename(files.database)))) {
    // A log of the former database would be played into the new one.
    for (const end of LOGS) rmSync(files.database + end, { force: true })
    if (exists(join(pending, WITHOUT_CLI_KEY))) rmSync(join(files.dir, CLI_KEY), { force: true })
    for (const path of [files.key, join(files.dir, CLI_KEY), files.database]) {
      const from = join(pending, basename(path))
      if (exists(from)) renameSync(from, path)
    }
    syncDir(files.dir)
  }
  rmSync(pending, { recursive: true, force: true })
  syncDir(files.dir)
}
