import {
  chmodSync,
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createHash } from 'node:crypto'
import { dirname, join } from 'node:path'
import { HoldfastError, fail } from '../../model/errors.ts'
import type { Ids } from '../../model/ids.ts'

/**
 * The state directory's files. While this process holds `lock.db` or the database, neither may be opened and closed
 * here by other means than SQLite: POSIX drops all of a process's locks on a file when any descriptor of it closes.
 */
export interface StateFiles {
  readonly dir: string
  readonly database: string
  readonly lock: string
  /** Tells people who holds the lock; the lock itself is the kernel's. */
  readonly holder: string
  /** 32 bytes for sealing secrets; without it, what was sealed is lost. */
  readonly key: string
}

export function stateFiles(dir: string): StateFiles {
  return {
    dir,
    database: join(dir, 'holdfast.db'),
    lock: join(dir, 'lock.db'),
    holder: join(dir, 'lock.json'),
    key: join(dir, 'secret.key'),
  }
}

/** Any failure of the file system as the store's own. */
export function asFileError(error: unknown): HoldfastError {
  if (error instanceof HoldfastError) return error
  const failure = fail('STORE_FAILED', { detail: error instanceof Error ? error.message : String(error) })
  failure.cause = error
  return failure
}

export function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined
}

/** Makes renames and links in a directory durable. */
export function syncDir(dir: string): void {
  const fd = openSync(dir, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** Makes the directory, for the owner only, if there is none. */
export function ensureDir(dir: string): void {
  const made = mkdirSync(dir, { recursive: true, mode: 0o700 })
  if (made !== undefined) syncDir(dirname(made))
}

/** Closes a state directory to others. One that held other things before us keeps its mode: it may be shared on purpose. */
export function tightenDir(files: StateFiles): void {
  const found = statSync(files.dir)
  if ((found.mode & 0o077) === 0 || found.uid !== process.getuid?.()) return
  const foreign = readdirSync(files.dir).filter((name) => join(files.dir, name) !== files.lock)
  if (foreign.length === 0 || exists(files.database)) chmodSync(files.dir, 0o700)
}

/** Makes an empty file, readable by the owner only, if there is none. Never opens one that exists. */
export function ensurePrivateFile(path: string): void {
  try {
    closeSync(openSync(path, 'wx', 0o600))
    syncDir(dirname(path))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    const found = statSync(path)
    if ((found.mode & 0o077) !== 0 && found.uid === process.getuid?.()) chmodSync(path, 0o600)
  }
}

/** Writes a whole private file: after a crash it is there in full, or as it was before. Only by the holder of the lock. */
export function writePrivateFile(path: string, data: string | Uint8Array): void {
  const temporary = `${path}.new`
  rmSync(temporary, { force: true })
  const fd = openSync(temporary, 'wx', 0o600)
  try {
    writeFileSync(fd, data)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  renameSync(temporary, path)
  syncDir(dirname(path))
}

const KEY_BYTES = 32

/** The sealing key, made at the first call. Throws `STORE_FAILED` for a damaged one, which is never replaced. */
export function loadSecretKey(files: StateFiles, ids: Ids): Buffer {
  if (!exists(files.key)) {
    writePrivateFile(files.key, createHash('sha256').update(ids.secret()).digest())
  }
  const key = readFileSync(files.key)
  if (key.length !== KEY_BYTES) {
    throw fail('STORE_FAILED', {
      detail: `${files.key} holds ${key.length} bytes instead of ${KEY_BYTES}; put the right one back from a backup`,
    })
  }
  return key
}

/** What tells a file from another one that later has its path. */
export interface FileIdentity {
  readonly dev: number
  readonly ino: number
}

export function identityOf(path: string): FileIdentity | null {
  const found = statSync(path, { throwIfNoEntry: false })
  return found === undefined ? null : { dev: found.dev, ino: found.ino }
}

export function isStill(path: string, identity: FileIdentity): boolean {
  const now = identityOf(path)
  return now !== null && now.dev === identity.dev && now.ino === identity.ino
}

const HEADER_BYTES = 100
const MAGIC = 'SQLite format 3\0'
/** Where SQLite keeps `user_version`: 4 bytes, big-endian (file format, section 1.3). */
const USER_VERSION_OFFSET = 60

/**
 * The schema version in a database file, read without opening it as a database, so that nothing is made or changed
 * beside it; 0 when there is none yet. The header is right also while a write-ahead log exists, because migrations
 * run with a rollback journal.
 */
export function storedVersion(path: string): number {
  if (!exists(path)) return 0
  const header = Buffer.alloc(HEADER_BYTES)
  const fd = openSync(path, 'r')
  let length: number
  try {
    length = readSync(fd, header, 0, HEADER_BYTES, 0)
  } finally {
    closeSync(fd)
  }
  if (length === 0) return 0
  if (length < HEADER_BYTES || header.toString('latin1', 0, MAGIC.length) !== MAGIC) {
    throw fail('STORE_FAILED', { detail: `${path} is not a database; it is left as it is` })
  }
  return header.readUInt32BE(USER_VERSION_OFFSET)
}
