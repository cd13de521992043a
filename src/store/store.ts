import type { Hold } from '../model/hold.ts'
import type {
  EventDraft,
  EventRecord,
  JournalRow,
  JournalState,
  QuarantineRow,
  SandboxRecord,
  Step,
  Tombstone,
  VolumeRecord,
} from '../model/records.ts'

/**
 * The state that outlives every process. All reads and writes happen in transactions; a write transaction checks the
 * epoch first and throws `FENCED` when a newer control plane has taken over, so an older one commits nothing
 * (DESIGN §4.9). No engine call may happen inside a transaction.
 *
 * A callback awaits nothing but its own transaction: no engine call, no timer, no second `write` or `read` (it would
 * wait for the first). One that is open for 10 seconds is rolled back, so that such a mistake stops nothing else.
 *
 * Failures: a commit that fails throws `STORE_FAILED`, and nothing of it remains. A row that cannot be read is left
 * out of lists, but a look-up that something is decided by throws `ROW_UNREADABLE` naming it (`sandbox`,
 * `sandboxByName`, `sandboxesByPrefix`, `volume`, `volumeByClaim`, `volumeByPhysicalName`, `holdersOf`, `openSteps` of
 * one key): unreadable is not absent. Totals count such rows.
 */
export interface Store {
  readonly installation: string
  readonly epoch: number
  /** A write transaction. With `durable`, its commit is on disk before this resolves: needed for all that acknowledges a request and all journal rows. */
  write<T>(durable: boolean, fn: (tx: WriteTx) => Promise<T>): Promise<T>
  /** A consistent read. */
  read<T>(fn: (tx: ReadTx) => Promise<T>): Promise<T>
  /** Throws `FENCED` when this process no longer holds the lock or the epoch. Cheap enough for every engine call. */
  assertFence(): void
  close(): Promise<void>
}

export interface SandboxFilter {
  /** Rows whose delete is finished are left out unless asked for. */
  readonly includeDeleted?: boolean
  /** Any of these phases, case-insensitive. */
  readonly phases?: readonly string[]
  /** All of these metadata pairs. */
  readonly metadata?: Readonly<Record<string, string>>
  readonly engine?: string
}

export interface Page<T> {
  readonly items: readonly T[]
  readonly total: number
}

export interface EventFilter {
  readonly afterSeq?: number
  readonly subject?: string
  readonly id?: string
  readonly limit: number
  /** Newest first. */
  readonly reverse?: boolean
}

export interface IdempotencyRow {
  /** Caller's key id + the header's value. */
  readonly key: string
  /** Hash of route and body. */
  readonly requestHash: string
  readonly status: number
  readonly body: string
  readonly at: number
}

export interface ApiKeyRow {
  readonly id: string
  readonly name: string
  /** Salted hash; the key itself is nowhere. */
  readonly hash: string
  readonly createdAt: number
}

export interface ReadTx {
  sandbox(id: string): Promise<SandboxRecord | null>
  sandboxByName(name: string): Promise<SandboxRecord | null>
  /** Live rows whose id starts with `prefix`; at most `limit`. */
  sandboxesByPrefix(prefix: string, limit: number): Promise<readonly SandboxRecord[]>
  /** Newest first. Rows that cannot be read are left out and reported by `corruptRows`: one bad row hides only itself. */
  sandboxes(filter: SandboxFilter, page?: { offset: number; limit: number }): Promise<Page<SandboxRecord>>
  /** Not deleted, with `expiresAt` ≤ the given time. */
  sandboxesExpiredAt(now: number): Promise<readonly SandboxRecord[]>
  volume(uid: string): Promise<VolumeRecord | null>
  /** The live (not removed) volume of this claim on an engine; workspaces and image volumes have no claim of a user's. */
  volumeByClaim(engine: string, claim: string): Promise<VolumeRecord | null>
  /** The live row of this name; without one, the newest that was removed. */
  volumeByPhysicalName(engine: string, name: string): Promise<VolumeRecord | null>
  volumesOwnedBy(sandbox: string): Promise<readonly VolumeRecord[]>
  volumes(
    filter: { includeRemoved?: boolean; engine?: string },
    page?: { offset: number; limit: number },
  ): Promise<Page<VolumeRecord>>
  /** Sandboxes, not finished deleting, whose spec or image mounts name this volume. */
  holdersOf(volume: string): Promise<readonly SandboxRecord[]>
  /** The ids of those whose row cannot be read as well: for whoever only tells who it is. */
  holderIds(volume: string): Promise<readonly string[]>
  openSteps(key?: string): Promise<readonly JournalRow[]>
  /** Newest first. */
  journal(key: string, limit: number): Promise<readonly JournalRow[]>
  events(filter: EventFilter): Promise<readonly EventRecord[]>
  /** The last number given out, also when that event was pruned; 0 before the first. */
  lastEventSeq(): Promise<number>
  tombstone(uid: string): Promise<Tombstone | null>
  tombstoneByName(engine: string, kind: Tombstone['kind'], name: string): Promise<Tombstone | null>
  quarantine(engine?: string): Promise<readonly QuarantineRow[]>
  idempotency(key: string): Promise<IdempotencyRow | null>
  apiKeys(): Promise<readonly ApiKeyRow[]>
  meta(key: string): Promise<string | null>
  /** What keeps removals back until a person confirms; null when nothing does. */
  hold(): Promise<Hold | null>
  corruptRows(): Promise<readonly { table: string; id: string; error: string }[]>
}

export interface WriteTx extends ReadTx {
  /** Throws `SANDBOX::NAME_TAKEN` with the holder's id while a live sandbox has the name. */
  insertSandbox(record: SandboxRecord): Promise<void>
  /** Compare-and-set on `version`: false when the row has moved on. The stored version is `record.version + 1`. */
  updateSandbox(record: SandboxRecord): Promise<boolean>
  /** Throws `VOLUME::CLAIM_TAKEN` while a live volume of the engine has the claim or the physical name. */
  insertVolume(record: VolumeRecord): Promise<void>
  updateVolume(record: VolumeRecord): Promise<boolean>
  /** The intent, before its effect. */
  openStep(row: {
    key: string
    engine: string
    step: Step
    generation: number
    at: number
    deadlineAt: number
  }): Promise<JournalRow>
  /** A retry of an open row: same id, same names; attempts grow, epoch and deadline are renewed. */
  retryStep(id: number, at: number, deadlineAt: number): Promise<JournalRow>
  /** Throws `STORE_FAILED` for a step that is not open: an outcome is recorded once. */
  closeStep(id: number, state: Exclude<JournalState, 'open'>, at: number, outcome: string): Promise<void>
  appendEvent(draft: EventDraft, at: number): Promise<EventRecord>
  /** Once per uid and name; a repeat changes nothing. */
  putTombstone(tombstone: Tombstone): Promise<void>
  /** The same object (engine id) seen again keeps the time it was first seen. */
  putQuarantine(row: QuarantineRow): Promise<void>
  dropQuarantine(engine: string, kind: string, name: string): Promise<void>
  putIdempotency(row: IdempotencyRow): Promise<void>
  putApiKey(row: ApiKeyRow): Promise<void>
  /** Removing one that is gone is no error. */
  removeApiKey(id: string): Promise<void>
  setMeta(key: string, value: string): Promise<void>
  /**
   * Removes closed journal rows, events, idempotency rows, and rows of finished sandboxes and removed volumes older than
   * the given times; at most 2,000 of each kind per call. Returns how many went. Tombstones stay.
   */
  prune(before: { events: number; journal: number; idempotency: number; sandboxes: number }): Promise<number>
}
