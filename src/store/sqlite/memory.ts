import { DatabaseSync } from 'node:sqlite'
import type { Clock } from '../../model/clock.ts'
import { fail } from '../../model/errors.ts'
import type { Ids } from '../../model/ids.ts'
import type { Store } from '../store.ts'
import { createConnection } from './connection.ts'
import { createCore, migrate, readEpoch, takeOver } from './core.ts'

/** A store in memory that can crash: the same code and schema as on disk, without files and lock. */
export interface MemoryStore extends Store {
  /**
   * The process dies now and another one opens the same data: a running transaction is gone, committed ones stay, the
   * epoch grows, and this store throws `FENCED` from now on, whatever was waiting in it.
   */
  reopen(): MemoryStore
  /** The database behind it, for tests that damage rows. */
  readonly database: DatabaseSync
}

export function memoryStore(clock: Clock, ids: Ids): MemoryStore {
  const database = new DatabaseSync(':memory:')
  migrate(createConnection(database))
  return openOn(database, clock, ids)
}

function openOn(database: DatabaseSync, clock: Clock, ids: Ids): MemoryStore {
  const connection = createConnection(database)
  const identity = takeOver(connection, ids)
  const core = createCore({
    writer: connection,
    reader: connection,
    identity,
    clock,
    holds: () => database.isOpen,
    release: () => connection.revoke(() => fail('STORE_FAILED', { detail: 'the store is closed' })),
  })
  return {
    ...core,
    database,
    reopen: () => {
      if (database.isTransaction) database.exec('ROLLBACK')
      const peek = createConnection(database)
      connection.revoke(() => fail('FENCED', { mine: identity.epoch, current: readEpoch(peek) }))
      return openOn(database, clock, ids)
    },
  }
}
