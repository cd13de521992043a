import type { Hold } from '../model/hold.ts'
import type { EngineRun, ImageFacts, InstanceFacts, Observed, VolumeFacts } from '../model/facts.ts'
import type {
  EventDraft,
  JournalRow,
  JournalState,
  SandboxRecord,
  Step,
  Tombstone,
  VolumeRecord,
} from '../model/records.ts'

/** What one look at a sandbox gives. */
export interface SandboxObservation {
  /** By the journaled name; null is confirmed absent. */
  readonly instance: InstanceFacts | null
  /** By physical name; null is confirmed absent. */
  readonly volumes: ReadonlyMap<string, VolumeFacts | null>
}

/** All that `planSandbox` decides from. Nothing else influences it. */
export interface SandboxView {
  readonly installation: string
  readonly record: SandboxRecord
  /** The rows of all volumes that the record mounts. */
  readonly volumes: readonly VolumeRecord[]
  readonly open: readonly JournalRow[]
  readonly observed: Observed<SandboxObservation>
  /** Undefined until asked for with `need: 'image'`; null is not present. */
  readonly image: ImageFacts | null | undefined
  /** Undefined until asked for with `need: 'exit-cause'`. */
  readonly exitCause: 'external' | 'own' | null | undefined
  readonly canPull: boolean
  readonly hold: Hold | null
  /**
   * Names of instances of this sandbox that the engine has and the store does not know. Undefined until asked for
   * with `need: 'strangers'`.
   */
  readonly strangers: readonly string[] | undefined
  readonly now: number
  /** Fresh ids, for what this pass names. */
  readonly fresh: () => string
}

/** A journal row that the observation has settled. */
export interface SettledRow {
  readonly id: number
  readonly state: Exclude<JournalState, 'open'>
  readonly outcome: string
}

/** A pass's result, as data: committed in one transaction, then the step is taken. */
export interface SandboxDecision {
  /** Ask for this and plan again; nothing is committed. */
  readonly need?: 'image' | 'exit-cause' | 'strangers'
  readonly record: SandboxRecord
  readonly newVolumes: readonly VolumeRecord[]
  readonly changedVolumes: readonly VolumeRecord[]
  readonly settled: readonly SettledRow[]
  readonly tombstones: readonly Tombstone[]
  readonly events: readonly EventDraft[]
  readonly step: Step | null
  /** The open journal row that the step retries, with its names. */
  readonly retryOf: number | null
  /** Keys to look at after the commit. */
  readonly kicks: readonly string[]
  /** Look again then, milliseconds since the epoch; null when nothing is due. */
  readonly wakeAt: number | null
}

export interface VolumeView {
  readonly installation: string
  readonly record: VolumeRecord
  /** The row of the sandbox it was made for; null when there is none, or it is finished and forgotten. */
  readonly owner: SandboxRecord | null
  /** True when the owner's delete is finished for ever: its tombstone says so. */
  readonly ownerBuried: boolean
  /** Open steps of the owner: a create under way can still mount the volume. */
  readonly ownerOpen: readonly JournalRow[]
  readonly holders: readonly SandboxRecord[]
  readonly open: readonly JournalRow[]
  /** Of the physical name and every discarded one. */
  readonly observed: Observed<ReadonlyMap<string, VolumeFacts | null>>
  /** Names of unlabelled volumes that were asked for and hold nothing. */
  readonly empty: ReadonlySet<string> | undefined
  readonly hold: Hold | null
  readonly now: number
}

export interface VolumeDecision {
  readonly need?: 'empty'
  readonly record: VolumeRecord
  /** The commit must find no holder in the same transaction, or it is not made. */
  readonly guardNoHolders: boolean
  readonly settled: readonly SettledRow[]
  readonly tombstones: readonly Tombstone[]
  readonly events: readonly EventDraft[]
  readonly step: Step | null
  readonly retryOf: number | null
  readonly kicks: readonly string[]
  readonly wakeAt: number | null
}

export type { EngineRun }
