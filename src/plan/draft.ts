import type {
  Desired,
  DesiredReason,
  EventDraft,
  EventType,
  InstanceRef,
  Phase,
  SandboxRecord,
  SandboxStatus,
  Step,
  Tombstone,
  VolumeRecord,
} from '../model/records.ts'
import type { SandboxDecision, SandboxView, SettledRow } from './types.ts'

/** What a pass collects while it decides. Local to one call of the planner; nothing outside sees it change. */
export interface Draft {
  record: SandboxRecord
  readonly newVolumes: VolumeRecord[]
  readonly changedVolumes: Map<string, VolumeRecord>
  readonly settled: SettledRow[]
  readonly tombstones: Tombstone[]
  readonly events: EventDraft[]
  readonly kicks: Set<string>
}

export function draftOf(view: SandboxView): Draft {
  return {
    record: view.record,
    newVolumes: [],
    changedVolumes: new Map(),
    settled: [],
    tombstones: [],
    events: [],
    kicks: new Set(),
  }
}

/** Lets go of an instance that is confirmed absent; its tombstone keeps a late remnant recognisable. */
export function retire(view: SandboxView, draft: Draft, ref: InstanceRef): void {
  draft.tombstones.push({
    uid: ref.uid,
    kind: 'instance',
    name: ref.name,
    engine: draft.record.engine,
    at: view.now,
  })
  draft.record = { ...draft.record, instance: null }
}

/** Adds an event about this sandbox. */
export function tell(draft: Draft, type: EventType, reason: string, message: string): void {
  draft.events.push({ subject: 'sandbox', id: draft.record.id, type, reason, message })
}

/** Changes what is wanted, by our own rules (an exit under `no`, a refused create); the generation grows as with a user's change. */
export function want(draft: Draft, desired: Desired, reason: DesiredReason, now: number): void {
  draft.record = {
    ...draft.record,
    desired,
    desiredReason: reason,
    desiredAt: now,
    generation: draft.record.generation + 1,
  }
}

export interface StatusInput {
  readonly phase: Phase
  readonly reason: string
  readonly message: string
  readonly difference?: string
  readonly next?: string
  readonly nextAt?: number | null
}

export function statusOf(s: StatusInput): SandboxStatus {
  return {
    phase: s.phase,
    reason: s.reason,
    message: s.message,
    difference: s.difference ?? '',
    next: s.next ?? '',
    nextAt: s.nextAt ?? null,
  }
}

/** Ends a pass without a step. */
export function rest(draft: Draft, status: StatusInput, wakeAt: number | null = null): SandboxDecision {
  return finish(draft, status, null, null, wakeAt)
}

/** Ends a pass with one step; the next pass looks again and decides from facts. */
export function take(
  draft: Draft,
  status: StatusInput,
  step: Step,
  retryOf: number | null = null,
): SandboxDecision {
  return finish(draft, { next: step.kind, ...status }, step, retryOf, null)
}

/** Asks for one more fact; nothing of the draft is kept. */
export function need(view: SandboxView, what: 'image' | 'exit-cause' | 'strangers'): SandboxDecision {
  return { ...finish(draftOf(view), { ...view.record.status }, null, null, null), need: what }
}

function finish(
  draft: Draft,
  status: StatusInput,
  step: Step | null,
  retryOf: number | null,
  wakeAt: number | null,
): SandboxDecision {
  return {
    record: { ...draft.record, status: statusOf(status) },
    newVolumes: draft.newVolumes,
    changedVolumes: [...draft.changedVolumes.values()],
    settled: draft.settled,
    tombstones: draft.tombstones,
    events: draft.events,
    step,
    retryOf,
    kicks: [...draft.kicks],
    wakeAt,
  }
}
