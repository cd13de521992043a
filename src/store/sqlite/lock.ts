import { readFileSync, rmSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { z } from 'zod'
import { fail } from '../../model/errors.ts'
import { isSqliteError } from './connection.ts'
import { ensurePrivateFile, writePrivateFile } from './files.ts'
import type { StateFiles } from './files.ts'

/**
 * The lock that one process holds for its life: an exclusive transaction on `lock.db`, because Node has no flock. It
 * never writes, so taking it changes no byte, and the kernel frees it however the process ends.
 */
export interface Lock {
  readonly held: boolean
  release(): void
}

/** How long a second opener waits, in milliseconds: enough for two that start at once to settle who is first. */
const LOCK_WAIT_MS = 250

const SQLITE_BUSY = 5
const PRIMARY_CODE = 0xff

/** Throws `STATE_LOCKED`, naming the holder, when another live process has it. */
export function takeLock(files: StateFiles): Lock {
  ensurePrivateFile(files.lock)
  const handle = new DatabaseSync(files.lock, { timeout: LOCK_WAIT_MS })
  try {
    // In memory: an exclusive transaction on an empty database begins with a journal, which would be a file.
    handle.exec('PRAGMA journal_mode = MEMORY')
    handle.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    handle.close()
    if (isSqliteError(error) && (error.errcode & PRIMARY_CODE) === SQLITE_BUSY) {
      throw fail('STATE_LOCKED', { dir: files.dir, holder: holderOf(files) })
    }
    throw error
  }
  return {
    get held() {
      return handle.isOpen && handle.isTransaction
    },
    release: () => {
      if (handle.isOpen) handle.close()
    },
  }
}

export interface Holder {
  readonly pid: number
  readonly host: string
  /** When it took the lock, ISO 8601. */
  readonly since: string
}

const holderSchema: z.ZodType<Holder> = z.object({ pid: z.int(), host: z.string(), since: z.string() })

/** Only by the holder of the lock. */
export function recordHolder(files: StateFiles, holder: Holder): void {
  writePrivateFile(files.holder, `${JSON.stringify(holder)}\n`)
}

export function forgetHolder(files: StateFiles): void {
  rmSync(files.holder, { force: true })
}

/** The holder in words, for the error; the lock is what decides, so a missing or damaged note is only said. */
function holderOf(files: StateFiles): string {
  let note: string
  try {
    note = readFileSync(files.holder, 'utf8')
  } catch {
    // The holder has not written it yet, or another user may not read it.
    return 'another process'
  }
  try {
    const { pid, host, since } = holderSchema.parse(JSON.parse(note))
    return `process ${pid} on ${host} (since ${since})`
  } catch {
    // Half of an older note says nothing useful; the lock is held all the same.
    return 'another process'
  }
}
