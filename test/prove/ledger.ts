import type {
  JournalRow,
  JournalState,
  SandboxRecord,
  Tombstone,
  VolumeRecord,
} from '../../src/model/records.ts'
import type { Store, WriteTx } from '../../src/store/store.ts'

/** What the store holds committed, kept beside it so that a check can look at any instant without a transaction. */
export interface Ledger {
  readonly sandboxes: Map<string, SandboxRecord>
  readonly volumes: Map<string, VolumeRecord>
  readonly steps: Map<number, JournalRow>
  /** By uid and name: a volume that was made anew left one for each name. */
  readonly tombstones: Map<string, Tombstone>
  /** `<kind> <name>` of what is listed as quarantined. */
  readonly quarantine: Set<string>
  /** Transactions that were committed so far. */
  commits: number
  /** At which of them what is wanted of a sandbox last changed, and a step was last meant to be taken. */
  readonly wantedAt: Map<string, number>
  readonly meantAt: Map<number, number>
}

export function createLedger(): Ledger {
  return {
    sandboxes: new Map(),
    volumes: new Map(),
    steps: new Map(),
    tombstones: new Map(),
    quarantine: new Set(),
    commits: 0,
    wantedAt: new Map(),
    meantAt: new Map(),
  }
}

export function enterSandbox(ledger: Ledger, r: SandboxRecord): void {
  if (ledger.sandboxes.get(r.id)?.desired !== r.desired) ledger.wantedAt.set(r.id, ledger.commits)
  ledger.sandboxes.set(r.id, r)
}

export function enterStep(ledger: Ledger, row: JournalRow): void {
  if (ledger.steps.get(row.id)?.attempts !== row.attempts) ledger.meantAt.set(row.id, ledger.commits)
  ledger.steps.set(row.id, row)
}

type Entry = (ledger: Ledger) => void

/** What a transaction changes, noted as it happens and entered only when it was committed. */
function noting(tx: WriteTx, entries: Entry[]): WriteTx {
  const sandbox = (r: SandboxRecord): void => void entries.push((l) => enterSandbox(l, r))
  const volume = (r: VolumeRecord): void => void entries.push((l) => l.volumes.set(r.uid, r))
  const step = (row: JournalRow): JournalRow => {
    entries.push((l) => enterStep(l, row))
    return row
  }
  return {
    ...tx,
    async insertSandbox(record) {
      await tx.insertSandbox(record)
      sandbox(record)
    },
    async updateSandbox(record) {
      const done = await tx.updateSandbox(record)
      if (done) sandbox({ ...record, version: record.version + 1 })
      return done
    },
    async insertVolume(record) {
      await tx.insertVolume(record)
      volume(record)
    },
    async updateVolume(record) {
      const done = await tx.updateVolume(record)
      if (done) volume({ ...record, version: record.version + 1 })
      return done
    },
    openStep: async (row) => step(await tx.openStep(row)),
    retryStep: async (id, at, deadlineAt) => step(await tx.retryStep(id, at, deadlineAt)),
    async closeStep(id, state: Exclude<JournalState, 'open'>, at, outcome) {
      await tx.closeStep(id, state, at, outcome)
      entries.push((l) => {
        const row = l.steps.get(id)
        if (row !== undefined) l.steps.set(id, { ...row, state, closedAt: at, outcome })
      })
    },
    async putTombstone(tombstone) {
      await tx.putTombstone(tombstone)
      entries.push((l) => l.tombstones.set(`${tombstone.uid} ${tombstone.name}`, tombstone))
    },
    async putQuarantine(row) {
      await tx.putQuarantine(row)
      entries.push((l) => l.quarantine.add(`${row.kind} ${row.name}`))
    },
    async dropQuarantine(engine, kind, name) {
      await tx.dropQuarantine(engine, kind, name)
      entries.push((l) => l.quarantine.delete(`${kind} ${name}`))
    },
  }
}

export interface Gate {
  /** False: the process is dead, and nothing of it goes on. */
  alive(): boolean
  /** A place where the process may die. */
  point(what: string): void
  committed(): void
  /** Why the next commit fails, as a full disk or a busy database would have it; null when it does not. */
  refusal(): Error | null
}

const never = <T>(): Promise<T> => new Promise(() => undefined)

/**
 * A store whose process can die right before and right after each commit. What a dead process still waits for never
 * comes, so that no handler of it runs.
 */
export function gated(store: Store, ledger: Ledger, gate: Gate): Store {
  return {
    installation: store.installation,
    epoch: store.epoch,
    async write(durable, fn) {
      if (!gate.alive()) return never()
      gate.point('before the commit')
      if (!gate.alive()) return never()
      const refusal = gate.refusal()
      if (refusal !== null) throw refusal
      const entries: Entry[] = []
      let result: Awaited<ReturnType<typeof fn>>
      try {
        result = await store.write(durable, (tx) => {
          entries.length = 0
          return fn(noting(tx, entries))
        })
      } catch (error) {
        if (!gate.alive()) return never()
        throw error
      }
      if (!gate.alive()) return never()
      ledger.commits++
      for (const enter of entries) enter(ledger)
      gate.committed()
      gate.point('after the commit')
      return gate.alive() ? result : never()
    },
    async read(fn) {
      if (!gate.alive()) return never()
      try {
        const result = await store.read(fn)
        return gate.alive() ? result : never()
      } catch (error) {
        if (!gate.alive()) return never()
        throw error
      }
    },
    assertFence: () => store.assertFence(),
    close: () => store.close(),
  }
}
