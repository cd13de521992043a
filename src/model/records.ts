import type { EngineRun } from './facts.ts'
import type { SandboxId, VolumeUid } from './ids.ts'

export type Desired = 'running' | 'paused' | 'stopped' | 'deleted'
export type DesiredReason =
  | 'user'
  | 'create'
  | 'update'
  | 'expiry'
  | 'idle'
  | 'apply'
  | 'exited'
  | 'oom'
  | 'external'
  | 'engine-restart'
  | 'create-failed'
  /** Its store was lost, and this is what it was found to be. */
  | 'rebuilt'

/** What a sandbox shows. The first group are OpenSandbox's words, the second ours. */
export type Phase =
  | 'Pending'
  | 'Running'
  | 'Pausing'
  | 'Paused'
  | 'Resuming'
  | 'Stopping'
  | 'Terminated'
  | 'Failed'
  | 'Stopped'
  | 'Starting'
  | 'Lost'
  | 'Blocked'
  | 'Unknown'

export type RestartPolicy =
  | { readonly kind: 'no' }
  | { readonly kind: 'on-failure'; readonly max: number | null }
  | { readonly kind: 'always' }

export interface Limits {
  /** Thousandths of a core. */
  readonly cpuMillis?: number
  readonly memoryBytes?: number
  readonly pids?: number
}

export interface HostMount {
  readonly kind: 'host'
  readonly name: string
  readonly hostPath: string
  readonly path: string
  readonly readOnly: boolean
}

/** A mount of a volume row. The uid, not the claim, is what it names. */
export interface VolumeMount {
  readonly kind: 'volume'
  readonly name: string
  readonly volume: VolumeUid
  readonly claim: string
  readonly path: string
  readonly readOnly: boolean
}

export type Mount = HostMount | VolumeMount

/** The user's normalised spec: all that makes an instance what it is. Its hash is what drift is judged by (DESIGN §4.8). */
export interface SandboxSpec {
  readonly image: string
  /** What runs as the main process; empty means the image's own. */
  readonly entrypoint: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly limits: Limits
  readonly mounts: readonly Mount[]
  readonly workingDir: string | null
  readonly user: string | null
}

/** The instance a sandbox has now: chosen, with every name, when the create step's journal row is committed. */
export interface InstanceRef {
  readonly number: number
  readonly name: string
  readonly uid: string
  /** The engine's id once it is known. */
  readonly engineId: string | null
  readonly specHash: string
  readonly generation: number
  /** `restartSeq` of the sandbox when this instance was last started by us. */
  readonly restartSeq: number
  /** The engine run under which it was last seen running; null when it never was. */
  readonly run: EngineRun | null
  /** The engine's start time of the last start seen. */
  readonly startedAt: number | null
  /** Since when it is seen up from that start, by our clock: engines on other machines have clocks of their own. */
  readonly upSince: number | null
}

/** Why an instance ended; by circumstance, never by exit code (DESIGN §4). */
export type ExitClass =
  | 'workload'
  | 'oom'
  | 'external'
  | 'engine'
  /** We stopped it: a stop, restart, update or delete was asked for. */
  | 'asked'
  /** Seen, and not yet certain: the same engine run has to answer again (DESIGN §4). */
  | 'provisional'

export interface ExitRecord {
  readonly instance: number
  readonly startedAt: number
  readonly finishedAt: number | null
  readonly code: number | null
  readonly class: ExitClass
  /** When we first saw it, by our clock. */
  readonly seenAt: number
}

/** Persisted backoff of one key. */
export interface Backoff {
  readonly attempts: number
  readonly nextAt: number
  readonly error: string
  readonly code: string
  readonly at: number
}

/** Opens after too many failures in a row; an explicit user action clears it (DESIGN §4.4). */
export interface Breaker {
  readonly since: number
  readonly reason: string
  /** When one more try is made by itself. */
  readonly probeAt: number
}

export interface SandboxStatus {
  readonly phase: Phase
  /** CamelCase, for programs. */
  readonly reason: string
  /** One sentence, for people. */
  readonly message: string
  /** What differs between wanted and observed; empty when nothing does. */
  readonly difference: string
  /** The step that comes next, or empty. */
  readonly next: string
  /** When it comes; null when nothing is due. */
  readonly nextAt: number | null
}

export interface SandboxRecord {
  readonly id: SandboxId
  readonly name: string | null
  readonly engine: string
  readonly createdAt: number
  readonly updatedAt: number
  readonly spec: SandboxSpec
  readonly specHash: string
  readonly generation: number
  readonly observedGeneration: number
  readonly desired: Desired
  readonly desiredReason: DesiredReason
  readonly desiredAt: number
  readonly restartPolicy: RestartPolicy
  /** Grows with each asked-for restart; an instance started under a smaller one is restarted. */
  readonly restartSeq: number
  /** Grows with `recover`: leave to replace an instance that is gone. */
  readonly recoverSeq: number
  /** `recoverSeq` that the last replacement used up. */
  readonly recoveredSeq: number
  readonly expiresAt: number | null
  readonly stopGraceMs: number
  readonly metadata: Readonly<Record<string, string>>
  /** Managed volumes for the paths that the image declares and no mount covers; not part of the user's spec. */
  readonly imageMounts: readonly VolumeMount[]
  /** Image id whose declared volumes are settled, so that each image is asked once. */
  readonly imageId: string | null
  /** A `start` was asked for and no start was sent since: an end that came before it does not undo it. */
  readonly startAsked: boolean
  /** `recover` gave leave to go on with new, empty volumes in place of ones that are gone. */
  readonly mayReplaceVolumes: boolean
  /** Until then an earlier attempt of a create, or of a stop, that was retried can still land. */
  readonly createDoubtUntil: number | null
  readonly stopDoubtUntil: number | null
  /** The number of the newest instance ever named. */
  readonly instanceSeq: number
  readonly instance: InstanceRef | null
  readonly lastExit: ExitRecord | null
  /** Restarts in a row that did not last; the workload's own. */
  readonly restarts: number
  readonly backoff: Backoff | null
  readonly breaker: Breaker | null
  readonly status: SandboxStatus
  /** When every instance was confirmed absent after a delete: from then on it is a tombstone. */
  readonly deletedAt: number | null
  /** Row version: each write names the one it read. */
  readonly version: number
}

export type Retention = 'retain' | 'delete'

/**
 * `planned`: row only. `ready`: the engine object was seen with our labels. `removing`: a purge was committed
 * together with the mount check; nothing new may mount it. `removed`: confirmed gone.
 */
export type VolumeState = 'planned' | 'ready' | 'removing' | 'removed' | 'lost'

/** `none`: nothing to copy. `pending`: to be seeded. `seeding`: a create that seeds it was journaled. `seeded`: done once, for ever. */
export type SeedState = 'none' | 'pending' | 'seeding' | 'seeded'

/** Why a removal was allowed: the recorded consent (DESIGN §1.2). */
export interface PurgeConsent {
  readonly by: 'user' | 'owner-deleted'
  readonly at: number
}

export interface VolumeRecord {
  readonly uid: VolumeUid
  readonly claim: string
  readonly engine: string
  readonly physicalName: string
  /** Grows when a half-seeded volume is made anew. */
  readonly make: number
  /** Names of earlier makes that are still to be removed. */
  readonly discarded: readonly string[]
  readonly kind: 'workspace' | 'claim' | 'image'
  /** False for an engine volume of somebody else's: used, never labelled or removed. */
  readonly managed: boolean
  /** The sandbox it was made for; null for one made by `volume create`. */
  readonly owner: SandboxId | null
  readonly retention: Retention
  readonly shared: boolean
  readonly sizeBytes: number | null
  /** What was asked for and the engine cannot honour, in words. */
  readonly notEnforced: readonly string[]
  readonly state: VolumeState
  readonly seed: SeedState
  /** The engine's creation time: the identity of an unmanaged volume. */
  readonly engineCreatedAt: number | null
  readonly purge: PurgeConsent | null
  /** Why it is kept although its sandbox is gone, or why its removal waits. */
  readonly message: string
  readonly backoff: Backoff | null
  readonly createdAt: number
  readonly removedAt: number | null
  readonly version: number
}

export type StepKind =
  | 'pull-image'
  | 'create-volume'
  | 'remove-volume'
  | 'create-instance'
  | 'start-instance'
  | 'stop-instance'
  | 'pause-instance'
  | 'unpause-instance'
  | 'remove-instance'

/** One effect on an engine, as data: all names already chosen, no secret and no environment in it. */
export type Step =
  | { readonly kind: 'pull-image'; readonly image: string }
  | { readonly kind: 'create-volume'; readonly uid: VolumeUid; readonly name: string }
  | { readonly kind: 'remove-volume'; readonly uid: VolumeUid; readonly name: string; readonly why: string }
  | {
      readonly kind: 'create-instance'
      readonly name: string
      readonly uid: string
      readonly number: number
      readonly specHash: string
    }
  | {
      readonly kind: 'start-instance'
      readonly name: string
      readonly uid: string
      readonly engineId: string
    }
  | {
      readonly kind: 'stop-instance'
      readonly name: string
      readonly uid: string
      readonly engineId: string
      readonly graceMs: number
      readonly why: string
    }
  | {
      readonly kind: 'pause-instance'
      readonly name: string
      readonly uid: string
      readonly engineId: string
    }
  | {
      readonly kind: 'unpause-instance'
      readonly name: string
      readonly uid: string
      readonly engineId: string
    }
  | {
      readonly kind: 'remove-instance'
      readonly name: string
      readonly uid: string
      readonly engineId: string
      readonly why: string
    }

/** `open` until the outcome is known; `abandoned` when it is no longer wanted and certainly without effect. */
export type JournalState = 'open' | 'done' | 'failed' | 'abandoned'

export interface JournalRow {
  readonly id: number
  /** The reconciler key: `sandbox/<id>`, `volume/<uid>` or `sweep/<engine>`. */
  readonly key: string
  readonly engine: string
  readonly step: Step
  readonly generation: number
  readonly epoch: number
  readonly state: JournalState
  readonly attempts: number
  readonly createdAt: number
  /** Until then an effect may still land, so `404` means unknown (DESIGN §4.3). */
  readonly deadlineAt: number
  readonly closedAt: number | null
  readonly outcome: string | null
}

export type EventType = 'Normal' | 'Warning'

export interface EventDraft {
  /** `sandbox`, `volume`, `engine` or `server`. */
  readonly subject: 'sandbox' | 'volume' | 'engine' | 'server'
  readonly id: string
  readonly type: EventType
  /** CamelCase. */
  readonly reason: string
  readonly message: string
}

export interface EventRecord extends EventDraft {
  /** Grows by one with each event, for ever. */
  readonly seq: number
  readonly at: number
}

/** What stays of a deleted object, for ever: enough to know its remains as ours. */
export interface Tombstone {
  readonly uid: string
  readonly kind: 'sandbox' | 'instance' | 'volume'
  readonly name: string
  readonly engine: string
  readonly at: number
}

/** An engine object with our installation that no row and no tombstone knows: listed, never removed without a person. */
export interface QuarantineRow {
  readonly engine: string
  readonly kind: 'instance' | 'volume'
  readonly name: string
  readonly engineId: string
  readonly firstSeenAt: number
  readonly lastSeenAt: number
  readonly detail: string
}
