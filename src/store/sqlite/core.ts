import type { Clock } from '../../model/clock.ts'
import type { HoldfastError } from '../../model/errors.ts'
import { fail } from '../../model/errors.ts'
import type { Ids } from '../../model/ids.ts'
import { txOver } from '../queries/tx.ts'
import type { Store } from '../store.ts'
import type { Connection } from './connection.ts'
import { MIGRATIONS } from './migrations.ts'
import { createMutex } from './mutex.ts'
import { createBuilder, transact } from './transaction.ts'

/**
 * How long one transaction may stay open, in milliseconds: thousands of times what an honest one takes, and short enough
 * that one mistake does not stop the control plane for good.
 */
const TRANSACTION_LIMIT_MS = 10_000

export interface CoreOptions {
  readonly writer: Connection
  /** A connection of its own, so that reads never see an open write; the writer itself where there can be only one. */
  readonly reader: Connection
  readonly identity: Identity
  readonly clock: Clock
  /** False when the lock or the database file is no longer the one that was opened. Cheap and synchronous. */
  readonly holds: () => boolean
  /** Closes connections, then frees the lock. */
  readonly release: () => void
  readonly onFenced?: ((error: HoldfastError) => void) | undefined
}

export interface Identity {
  readonly installation: string
  readonly epoch: number
}

const EPOCH_QUERY = "SELECT value FROM meta WHERE key = 'epoch'"

/** The stored fencing number; 0 before the first. */
export function readEpoch(connection: Connection): number {
  const [row] = connection.all(EPOCH_QUERY, []) as { value: string }[]
  return row === undefined ? 0 : Number(row.value)
}

export function schemaVersion(connection: Connection): number {
  const [row] = connection.all('PRAGMA user_version', []) as { user_version: number }[]
  return row?.user_version ?? 0
}

/** Brings the schema up to date. The caller has refused a newer one already. */
export function migrate(connection: Connection, migrations: readonly string[] = MIGRATIONS): void {
  for (let version = schemaVersion(connection); version < migrations.length; version++) {
    connection.exec('BEGIN EXCLUSIVE')
    try {
      for (const statement of statementsOf(migrations[version] ?? '')) connection.exec(statement)
      connection.exec(`PRAGMA user_version = ${version + 1}`)
      connection.exec('COMMIT')
    } catch (error) {
      if (connection.inTransaction) connection.exec('ROLLBACK')
      throw error
    }
  }
}

/** Migrations hold no semicolon but those that end a statement. */
function statementsOf(script: string): readonly string[] {
  return script
    .split(';')
    .map((s) => s.trim())
    .filter((s) => s !== '')
}

/** Takes over: raises the epoch, so that whoever wrote before commits nothing more. Names the installation the first time, and only then. */
export function takeOver(connection: Connection, ids: Ids, installation: string = ids.next()): Identity {
  connection.exec('BEGIN IMMEDIATE')
  try {
    connection.run("INSERT INTO meta (key, value) VALUES ('installation', ?) ON CONFLICT DO NOTHING", [
      installation,
    ])
    const epoch = readEpoch(connection) + 1
    const put =
      "INSERT INTO meta (key, value) VALUES ('epoch', ?) ON CONFLICT DO UPDATE SET value = excluded.value"
    connection.run(put, [String(epoch)])
    const [row] = connection.all("SELECT value FROM meta WHERE key = 'installation'", []) as {
      value: string
    }[]
    connection.exec('COMMIT')
    return { installation: row?.value ?? '', epoch }
  } catch (error) {
    if (connection.inTransaction) connection.exec('ROLLBACK')
    throw error
  }
}

/** The store over connections that are open, migrated and owned. */
export function createCore(o: CoreOptions): Store {
  const { writer, reader, clock } = o
  const { epoch, installation } = o.identity
  const builder = createBuilder()
  const writes = createMutex()
  const reads = reader === writer ? writes : createMutex()
  const limits = { epoch, clock, limitMs: TRANSACTION_LIMIT_MS }
  let synchronous: 'FULL' | 'NORMAL' | null = null
  let fenced = false
  let closed: Promise<void> | null = null

  const fence = (current: number | null): HoldfastError => {
    const error = fail('FENCED', { mine: epoch, current })
    if (!fenced) {
      fenced = true
      o.onFenced?.(error)
    }
    return error
  }
  const assertEpoch = (): void => {
    const current = readEpoch(writer)
    if (current !== epoch) throw fence(current)
  }
  const assertHeld = (): void => {
    if (!writer.revoked && !o.holds()) throw fence(null)
  }
  const assertOpen = (): void => {
    if (closed !== null) throw fail('STORE_FAILED', { detail: 'the store is closed' })
  }
  /** A pragma between transactions: it has no effect inside one. */
  const setSynchronous = (mode: 'FULL' | 'NORMAL'): void => {
    if (synchronous === mode) return
    writer.exec(`PRAGMA synchronous = ${mode}`)
    synchronous = mode
  }

  return {
    installation,
    epoch,
    write: async (durable, fn) => {
      assertOpen()
      return writes.run(async () => {
        assertHeld()
        setSynchronous(durable ? 'FULL' : 'NORMAL')
        return transact(builder, writer, { ...limits, begin: 'BEGIN IMMEDIATE', check: assertEpoch }, (s) =>
          fn(txOver(s)),
        )
      })
    },
    read: async (fn) => {
      assertOpen()
      return reads.run(() => transact(builder, reader, { ...limits, begin: 'BEGIN' }, (s) => fn(txOver(s))))
    },
    assertFence: () => {
      if (closed !== null) throw fence(null)
      assertHeld()
      assertEpoch()
    },
    close: () => {
      closed ??= writes.run(() => Promise.resolve()).then(() => reads.run(async () => o.release()))
      return closed
    },
  }
}
