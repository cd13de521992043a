import type { DatabaseSync, SQLInputValue, StatementSync } from 'node:sqlite'
import { HoldfastError, fail } from '../../model/errors.ts'
import { UniqueViolation } from '../schema.ts'

/**
 * A synchronous SQLite handle with its statements kept prepared. `revoke` cuts a holder off from a handle that lives
 * on: every later call throws the given error and touches nothing.
 */
export interface Connection {
  all(sql: string, parameters: readonly unknown[]): unknown[]
  run(sql: string, parameters: readonly unknown[]): number
  exec(sql: string): void
  readonly inTransaction: boolean
  revoke(error: () => Error): void
  readonly revoked: boolean
  close(): void
}

/** Prepared statements kept per connection, in number: more than the distinct queries of the store, lists of varying length apart. */
const STATEMENT_CACHE = 256

const SQLITE_CONSTRAINT_UNIQUE = 2067
const SQLITE_CONSTRAINT_PRIMARYKEY = 1555

interface SqliteError extends Error {
  readonly code: 'ERR_SQLITE_ERROR'
  readonly errcode: number
}

export function isSqliteError(error: unknown): error is SqliteError {
  return error instanceof Error && (error as { code?: unknown }).code === 'ERR_SQLITE_ERROR'
}

function translate(error: unknown): unknown {
  if (!isSqliteError(error)) return error
  if (error.errcode !== SQLITE_CONSTRAINT_UNIQUE && error.errcode !== SQLITE_CONSTRAINT_PRIMARYKEY)
    return error
  return new UniqueViolation(error.message.replace(/^UNIQUE constraint failed: /, ''), error)
}

/** The error that leaves the store: one of the table. What is no failure of the store's own passes through. */
export function asStoreError(error: unknown): unknown {
  if (error instanceof HoldfastError) return error
  if (!isSqliteError(error) && !(error instanceof UniqueViolation)) return error
  const failure = fail('STORE_FAILED', { detail: error.message })
  failure.cause = error
  return failure
}

export function createConnection(handle: DatabaseSync): Connection {
  const statements = new Map<string, StatementSync>()
  let refusal: (() => Error) | null = null

  const check = (): void => {
    if (refusal !== null) throw refusal()
  }
  const prepare = (sql: string): StatementSync => {
    const known = statements.get(sql)
    if (known !== undefined) {
      statements.delete(sql)
      statements.set(sql, known)
      return known
    }
    const made = handle.prepare(sql)
    statements.set(sql, made)
    if (statements.size > STATEMENT_CACHE) {
      const [oldest] = statements.keys()
      if (oldest !== undefined) statements.delete(oldest)
    }
    return made
  }

  return {
    all: (sql, parameters) => {
      check()
      try {
        return prepare(sql).all(...(parameters as SQLInputValue[]))
      } catch (error) {
        throw translate(error)
      }
    },
    run: (sql, parameters) => {
      check()
      try {
        return Number(prepare(sql).run(...(parameters as SQLInputValue[])).changes)
      } catch (error) {
        throw translate(error)
      }
    },
    exec: (sql) => {
      check()
      prepare(sql).run()
    },
    get inTransaction() {
      return refusal === null && handle.isTransaction
    },
    revoke: (error) => {
      refusal = error
      statements.clear()
    },
    get revoked() {
      return refusal !== null
    },
    close: () => {
      statements.clear()
      if (handle.isOpen) handle.close()
    },
  }
}
