import { hostname } from 'node:os'
import { resolve } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { Clock } from '../../model/clock.ts'
import type { HoldfastError } from '../../model/errors.ts'
import { fail } from '../../model/errors.ts'
import type { Ids } from '../../model/ids.ts'
import type { Store } from '../store.ts'
import { createConnection } from './connection.ts'
import type { Connection } from './connection.ts'
import { createCore, migrate, schemaVersion, takeOver } from './core.ts'
import type { Identity } from './core.ts'
import {
  asFileError,
  ensureDir,
  ensurePrivateFile,
  exists,
  identityOf,
  isStill,
  loadSecretKey,
  stateFiles,
  storedVersion,
  tightenDir,
} from './files.ts'
import type { StateFiles } from './files.ts'
import { forgetHolder, recordHolder, takeLock } from './lock.ts'
import type { Lock } from './lock.ts'
import { memoryStore } from './memory.ts'
import { MIGRATIONS } from './migrations.ts'
import { finishReplacement } from './replace.ts'

export interface SqliteStoreOptions {
  /** The state directory, made when it does not exist; `:memory:` for a store that ends with the process. */
  readonly dir: string
  readonly clock: Clock
  readonly ids: Ids
  /** Called once, when this process finds that it may write no more. */
  readonly onFenced?: (error: HoldfastError) => void
  /** The identity of a store that is made anew; one of its own otherwise. */
  readonly installation?: string
  /** For tests of upgrades; the schema's own otherwise. */
  readonly migrations?: readonly string[]
}

/** How long a statement waits for a foreign tool's lock on the database, in milliseconds: the process stands still meanwhile. */
const BUSY_WAIT_MS = 250

/** Size that the write-ahead log is cut back to after a checkpoint, in bytes. */
const WAL_KEEP_BYTES = 16 * 1024 * 1024

/**
 * Opens the state directory and takes it over: checks the version, takes the lock, migrates, raises the epoch.
 *
 * Throws `STORE_TOO_NEW` and `STATE_LOCKED` with nothing changed, `STORE_FAILED` for all else.
 */
export async function openSqliteStore(o: SqliteStoreOptions): Promise<Store> {
  if (o.dir === ':memory:') return memoryStore(o.clock, o.ids)
  const files = stateFiles(resolve(o.dir))
  const migrations = o.migrations ?? MIGRATIONS
  let lock: Lock | null = null
  try {
    ensureDir(files.dir)
    // Before the lock where taking it would make a file, and after it where an older holder may just have migrated.
    if (!exists(files.lock)) refuseNewer(files, migrations)
    lock = takeLock(files)
    finishReplacement(files)
    refuseNewer(files, migrations)
    tightenDir(files)
    ensurePrivateFile(files.database)
    loadSecretKey(files, o.ids)
    recordHolder(files, { pid: process.pid, host: hostname(), since: new Date(o.clock.now()).toISOString() })
    return openLocked(files, lock, migrations, o)
  } catch (error) {
    lock?.release()
    throw asFileError(error)
  }
}

function refuseNewer(files: StateFiles, migrations: readonly string[]): void {
  const found = storedVersion(files.database)
  const known = migrations.length
  if (found > known) throw fail('STORE_TOO_NEW', { found, known, path: files.database })
}

function openLocked(
  files: StateFiles,
  lock: Lock,
  migrations: readonly string[],
  o: SqliteStoreOptions,
): Store {
  const writer = createConnection(new DatabaseSync(files.database, { timeout: BUSY_WAIT_MS }))
  let reader: Connection | null = null
  let identity: Identity
  try {
    if (schemaVersion(writer) < migrations.length) {
      // With a rollback journal, so that the header of the file always has the version (see `storedVersion`).
      writer.all('PRAGMA journal_mode = DELETE', [])
      migrate(writer, migrations)
    }
    writer.all('PRAGMA journal_mode = WAL', [])
    writer.all(`PRAGMA journal_size_limit = ${WAL_KEEP_BYTES}`, [])
    // Only macOS heeds it: there a plain fsync leaves the data in the drive's cache.
    writer.exec('PRAGMA fullfsync = 1')
    writer.exec('PRAGMA synchronous = FULL')
    identity = takeOver(writer, o.ids, o.installation)
    reader = createConnection(new DatabaseSync(files.database, { readOnly: true, timeout: BUSY_WAIT_MS }))
  } catch (error) {
    writer.close()
    throw error
  }
  const database = identityOf(files.database)
  const lockFile = identityOf(files.lock)
  const holds = (): boolean =>
    lock.held &&
    database !== null &&
    lockFile !== null &&
    isStill(files.database, database) &&
    isStill(files.lock, lockFile)
  const { clock, onFenced } = o
  const readOnly = reader
  const release = (): void => {
    // A holder that took over meanwhile has written its own note.
    if (holds()) forgetHolder(files)
    readOnly.close()
    try {
      writer.close()
    } finally {
      lock.release()
    }
  }
  return createCore({ writer, reader, identity, clock, holds, release, onFenced })
}
