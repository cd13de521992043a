import { DatabaseSync } from 'node:sqlite'
import { fail } from '../../model/errors.ts'
import { decodeHold, encodeHold, HOLD_META, type Hold } from '../../model/hold.ts'
import { ensurePrivateFile, storedVersion } from './files.ts'
import { MIGRATIONS } from './migrations.ts'

/** How long a copy waits for a foreign tool's lock on the database, in milliseconds. */
const BUSY_WAIT_MS = 10_000

/** What a database holds, in figures: enough to tell one copy of it from another. */
export interface DatabaseSummary {
  readonly schemaVersion: number
  readonly installation: string
  readonly epoch: number
  /** The engine that was chosen at the first start; null before. */
  readonly engine: string | null
  /** Rows that are not finished deletes. */
  readonly sandboxes: number
  readonly volumes: number
  readonly lastEventSeq: number
}

/**
 * Copies a database as one transaction saw it, whoever writes to it meanwhile: one statement is one snapshot, where
 * SQLite's page-wise backup would begin anew after each commit of another process. It takes no lock of ours, writes
 * nothing to the source, and leaves a file of its own without a log beside it.
 */
export function copyDatabase(source: string, target: string): void {
  ensurePrivateFile(target)
  const handle = new DatabaseSync(source, { readOnly: true, timeout: BUSY_WAIT_MS })
  try {
    handle.prepare('VACUUM INTO ?').run(target)
  } finally {
    handle.close()
  }
}

const one = <T>(handle: DatabaseSync, sql: string): T | undefined =>
  handle.prepare(sql).get() as unknown as T | undefined

const metaOf = (handle: DatabaseSync, key: string): string | null =>
  (handle.prepare('SELECT value FROM meta WHERE key = ?').get(key) as { value: string } | undefined)?.value ??
  null

/** Checks a database that nobody has open, and counts it. Throws `STORE_TOO_NEW`, or an error with what is damaged. */
export function summarise(path: string): DatabaseSummary {
  const known = MIGRATIONS.length
  const found = storedVersion(path)
  if (found > known) throw fail('STORE_TOO_NEW', { found, known, path })
  const handle = new DatabaseSync(path, { readOnly: true, timeout: BUSY_WAIT_MS })
  try {
    const problem = one<{ integrity_check: string }>(handle, 'PRAGMA integrity_check(1)')?.integrity_check
    if (problem !== 'ok') throw new Error(`the database is damaged: ${problem ?? 'no answer'}`)
    const count = (sql: string): number => one<{ n: number }>(handle, sql)?.n ?? 0
    return {
      schemaVersion: found,
      installation: metaOf(handle, 'installation') ?? '',
      epoch: Number(metaOf(handle, 'epoch') ?? 0),
      engine: metaOf(handle, 'engine'),
      sandboxes: count('SELECT count(*) AS n FROM sandboxes WHERE deleted_at IS NULL'),
      volumes: count("SELECT count(*) AS n FROM volumes WHERE state != 'removed'"),
      lastEventSeq: count("SELECT coalesce(max(seq), 0) AS n FROM sqlite_sequence WHERE name = 'events'"),
    }
  } finally {
    handle.close()
  }
}

/** What the database says of a hold. It must be one that `summarise` could read. */
export function readHold(path: string): Hold | null {
  const handle = new DatabaseSync(path, { readOnly: true, timeout: BUSY_WAIT_MS })
  try {
    return decodeHold(metaOf(handle, HOLD_META))
  } finally {
    handle.close()
  }
}

/** Makes a database that nobody has open the next store: under a new epoch, held, and telling of it. One file afterwards. */
export function markHeld(path: string, epoch: number, hold: Hold, message: string): void {
  const handle = new DatabaseSync(path, { timeout: BUSY_WAIT_MS })
  try {
    handle.exec('PRAGMA journal_mode = DELETE')
    handle.exec('PRAGMA synchronous = FULL')
    handle.exec('BEGIN IMMEDIATE')
    const put = handle.prepare(
      'INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value',
    )
    put.run('epoch', String(epoch))
    put.run(HOLD_META, encodeHold(hold))
    // Past every number that the former store gave out: whoever follows events from one of those goes on with this one.
    const known =
      one<{ seq: number }>(handle, "SELECT seq FROM sqlite_sequence WHERE name = 'events'")?.seq ?? 0
    handle
      .prepare(
        'INSERT INTO events (seq, subject, id, type, reason, message, at) VALUES (?, ?, ?, ?, ?, ?, ?)',
      )
      .run(
        Math.max(known + 1, Math.floor(hold.since)),
        'server',
        'store',
        'Warning',
        hold.reason === 'rebuilt' ? 'Rebuilt' : 'Restored',
        message,
        Math.floor(hold.since),
      )
    handle.exec('COMMIT')
  } finally {
    handle.close()
  }
}
