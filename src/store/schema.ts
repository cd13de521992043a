import type { Compilable, Generated, Kysely } from 'kysely'

/**
 * The tables as Kysely sees them. Columns beside `doc` exist only to be searched, sorted or kept unique; `doc` is the
 * record itself, and both are written by one function per table, so that they cannot tell different stories.
 */
export interface Schema {
  sandboxes: SandboxTable
  mounts: MountTable
  metadata: MetadataTable
  volumes: VolumeTable
  journal: JournalTable
  events: EventTable
  tombstones: TombstoneTable
  quarantine: QuarantineTable
  idempotency: IdempotencyTable
  api_keys: ApiKeyTable
  meta: MetaTable
}

export interface SandboxTable {
  id: string
  name: string | null
  engine: string
  phase: string
  desired: string
  created_at: number
  expires_at: number | null
  deleted_at: number | null
  version: number
  doc: string
}

/** Which sandbox names which volume, from its spec and its image mounts: written with the sandbox row, never by itself. */
export interface MountTable {
  sandbox: string
  volume: string
}

/** The metadata pairs of a sandbox, for filters: written with the sandbox row. */
export interface MetadataTable {
  sandbox: string
  key: string
  value: string
}

export interface VolumeTable {
  uid: string
  engine: string
  kind: string
  claim: string
  physical_name: string
  owner: string | null
  managed: number
  state: string
  created_at: number
  removed_at: number | null
  version: number
  doc: string
}

export interface JournalTable {
  id: Generated<number>
  key: string
  engine: string
  step: string
  generation: number
  epoch: number
  state: string
  attempts: number
  created_at: number
  tried_at: number
  deadline_at: number
  closed_at: number | null
  outcome: string | null
}

export interface EventTable {
  seq: Generated<number>
  subject: string
  id: string
  type: string
  reason: string
  message: string
  at: number
}

export interface TombstoneTable {
  uid: string
  kind: string
  name: string
  engine: string
  at: number
}

export interface QuarantineTable {
  engine: string
  kind: string
  name: string
  engine_id: string
  first_seen_at: number
  last_seen_at: number
  detail: string
}

export interface IdempotencyTable {
  key: string
  request_hash: string
  status: number
  body: string
  at: number
}

export interface ApiKeyTable {
  id: string
  name: string
  hash: string
  created_at: number
}

export interface MetaTable {
  key: string
  value: string
}

/**
 * One transaction as the queries see it. Kysely builds and compiles, the session runs: so a query that outlives its
 * transaction is refused here instead of running by itself afterwards.
 */
export interface Session {
  readonly db: Kysely<Schema>
  /** The fencing number that this transaction writes under. */
  readonly epoch: number
  all<O>(query: Compilable<O>): Promise<readonly O[]>
  /** The number of rows changed. Throws `UniqueViolation` when a unique index refuses them; the transaction goes on. */
  run(query: Compilable): Promise<number>
}

/** A unique index refused a row. `columns` is the database's own list of them, as `sandboxes.name`. */
export class UniqueViolation extends Error {
  readonly columns: string

  constructor(columns: string, cause: unknown) {
    super(`a row with the same ${columns} exists`, { cause })
    this.name = 'UniqueViolation'
    this.columns = columns
  }
}
