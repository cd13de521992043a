import { DummyDriver, Kysely, SqliteAdapter, SqliteIntrospector, SqliteQueryCompiler } from 'kysely'
import type { Clock } from '../../model/clock.ts'
import { fail } from '../../model/errors.ts'
import type { Schema, Session } from '../schema.ts'
import { asStoreError } from './connection.ts'
import type { Connection } from './connection.ts'

/** Kysely as builder and compiler only: what it compiles runs through a session, synchronously, on one connection. */
export function createBuilder(): Kysely<Schema> {
  return new Kysely<Schema>({
    dialect: {
      createAdapter: () => new SqliteAdapter(),
      createDriver: () => new DummyDriver(),
      createIntrospector: (db) => new SqliteIntrospector(db),
      createQueryCompiler: () => new SqliteQueryCompiler(),
    },
  })
}

export interface TransactionOptions {
  readonly begin: 'BEGIN' | 'BEGIN IMMEDIATE'
  readonly epoch: number
  /** How long the callback may take, in milliseconds. */
  readonly limitMs: number
  readonly clock: Clock
  /** Runs inside the transaction before the callback; what it throws rolls back. */
  readonly check?: () => void
}

interface Scope {
  readonly session: Session
  end(): void
}

function openScope(db: Kysely<Schema>, connection: Connection, epoch: number): Scope {
  let over = false
  const guard = (): void => {
    if (over) throw fail('STORE_FAILED', { detail: 'a query came after the end of its transaction' })
    // An I/O error or a full disk can end the transaction inside SQLite: what follows must not run outside of one.
    if (!connection.revoked && !connection.inTransaction) {
      throw fail('STORE_FAILED', { detail: 'the transaction was rolled back by the database' })
    }
  }
  return {
    end: () => {
      over = true
    },
    session: {
      db,
      epoch,
      // Async, so that a failure is a rejection; the query itself runs before the first await of the caller.
      all: async <O>(query: { compile(): { sql: string; parameters: readonly unknown[] } }) => {
        guard()
        const { sql, parameters } = query.compile()
        return connection.all(sql, parameters) as O[]
      },
      run: async (query) => {
        guard()
        const { sql, parameters } = query.compile()
        return connection.run(sql, parameters)
      },
    },
  }
}

/** Leaves no transaction open where that is possible. */
function rollback(connection: Connection): void {
  if (!connection.inTransaction) return
  try {
    connection.exec('ROLLBACK')
  } catch {
    // The error that led here says more, and the next transaction tries the rollback again before it begins.
  }
}

function limited<T>(o: TransactionOptions, work: Promise<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const cancel = o.clock.after(o.limitMs, () => {
      const detail = `a transaction was open for ${o.limitMs} ms, so it was rolled back: something other than its own reads and writes was awaited inside`
      reject(fail('STORE_FAILED', { detail }))
    })
    work.then(resolve, reject).finally(cancel).catch(reject)
  })
}

/**
 * Begins, runs the callback, commits; on any error nothing remains and the connection is free again. A callback that
 * awaits only its own queries never leaves the microtask queue, so nothing else runs in between.
 */
export async function transact<T>(
  db: Kysely<Schema>,
  connection: Connection,
  o: TransactionOptions,
  fn: (session: Session) => Promise<T>,
): Promise<T> {
  rollback(connection)
  const scope = openScope(db, connection, o.epoch)
  try {
    connection.exec(o.begin)
    o.check?.()
    const value = await limited(o, fn(scope.session))
    scope.end()
    if (!connection.revoked && !connection.inTransaction) {
      throw fail('STORE_FAILED', { detail: 'the transaction was rolled back by the database' })
    }
    connection.exec('COMMIT')
    return value
  } catch (error) {
    scope.end()
    rollback(connection)
    throw asStoreError(error)
  }
}
