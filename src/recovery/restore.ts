import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import type { Clock } from '../model/clock.ts'
import { fail, HoldfastError } from '../model/errors.ts'
import { epochAfter, holdCause, type Hold } from '../model/hold.ts'
import { markHeld, summarise } from '../store/sqlite/copy.ts'
import { asFileError, ensureDir, exists, stateFiles, type StateFiles } from '../store/sqlite/files.ts'
import { forgetHolder, recordHolder, takeLock } from '../store/sqlite/lock.ts'
import { finishReplacement, holdsStore, keepAside, putInPlace } from '../store/sqlite/replace.ts'
import { BadArchive, readArchive, type Manifest } from './archive.ts'
import { stamp } from './backup.ts'

export interface RestoreOptions {
  readonly stateDir: string
  /** The backup. */
  readonly source: string
  /** Replaces a store that is there; it is kept beside. */
  readonly force: boolean
  readonly clock: Pick<Clock, 'now'>
}

export interface Restored {
  readonly manifest: Manifest
  readonly epoch: number
  /** Where the former store is kept; null when there was none. */
  readonly kept: string | null
}

/** Where the next store is made, beside the present one; a number follows. */
export const STAGING = 'restoring-'

/** Does something to a state directory while no server can: throws `STATE_LOCKED`, naming the holder. */
export async function whileLocked<T>(
  stateDir: string,
  clock: Pick<Clock, 'now'>,
  work: (files: StateFiles) => Promise<T>,
): Promise<T> {
  const files = stateFiles(resolve(stateDir))
  ensureDir(files.dir)
  const lock = takeLock(files)
  try {
    finishReplacement(files)
    recordHolder(files, { pid: process.pid, host: hostname(), since: new Date(clock.now()).toISOString() })
    return await work(files)
  } catch (error) {
    // What a full or read-only disk says is told as such, and ends the program as such.
    throw (error as NodeJS.ErrnoException).syscall === undefined ? error : asFileError(error)
  } finally {
    forgetHolder(files)
    lock.release()
  }
}

/**
 * Makes a backup the store of a state directory. Nothing is changed before the whole backup was read and checked. The
 * restored store writes under an epoch that no server on an older copy had, and is held: it may be older than what is
 * on the engine.
 */
export async function restoreBackup(o: RestoreOptions): Promise<Restored> {
  if (!exists(o.source)) throw fail('BACKUP_INVALID', { path: o.source, detail: 'there is no such file' })
  return whileLocked(o.stateDir, o.clock, async (files) => {
    if (holdsStore(files) && !o.force) throw fail('STATE_NOT_EMPTY', { dir: files.dir })
    // What a killed restore left behind: nobody else can be at it while we hold the lock.
    for (const name of readdirSync(files.dir))
      if (name.startsWith(STAGING)) rmSync(join(files.dir, name), { recursive: true, force: true })
    const staged = mkdtempSync(join(files.dir, STAGING))
    try {
      return await restoreInto(files, staged, o)
    } finally {
      rmSync(staged, { recursive: true, force: true })
    }
  })
}

async function restoreInto(files: StateFiles, staged: string, o: RestoreOptions): Promise<Restored> {
  const manifest = await unpack(o.source, staged)
  const now = o.clock.now()
  const database = join(staged, 'holdfast.db')
  const hold: Hold = { reason: 'restored', since: now, backupAt: Date.parse(manifest.createdAt) }
  const epoch = epochAfter(Math.max(manifest.epoch, formerEpoch(files)), now)
  markHeld(database, epoch, hold, `${holdCause(hold)}. Removals are held until a person confirms.`)
  for (const { name } of manifest.files) chmodSync(join(staged, name), 0o600)
  const kept = holdsStore(files) ? freeName(files, now) : null
  if (kept !== null) keepAside(files, kept)
  putInPlace(files, staged)
  return { manifest, epoch, kept }
}

async function unpack(source: string, into: string): Promise<Manifest> {
  try {
    const manifest = await readArchive(source, into)
    const found = summarise(join(into, 'holdfast.db'))
    if (found.installation !== manifest.installation || found.lastEventSeq !== manifest.lastEventSeq)
      throw new BadArchive('its database is not the one that its manifest tells of')
    return manifest
  } catch (error) {
    if (error instanceof HoldfastError) throw error
    const detail = error instanceof Error ? error.message : String(error)
    const failure = fail('BACKUP_INVALID', { path: source, detail })
    failure.cause = error
    throw failure
  }
}

/** Of the store that is being replaced; 0 when it cannot be read, since the seconds since 1970 are beyond it anyway. */
function formerEpoch(files: StateFiles): number {
  if (!holdsStore(files)) return 0
  try {
    return summarise(files.database).epoch
  } catch {
    // Damaged, or of a newer version: both are reasons to restore.
    return 0
  }
}

/** A directory that is not there yet, named after now. */
export function freeName(files: StateFiles, now: number): string {
  for (let n = 1; ; n++) {
    const path = join(files.dir, `replaced-${stamp(now)}${n === 1 ? '' : `-${n}`}`)
    if (!exists(path)) return path
  }
}
