import type { VolumeFacts } from '../model/facts.ts'
import { holdCause, type Hold } from '../model/hold.ts'
import { sandboxKey, volumeKey } from '../model/keys.ts'
import type { SandboxRecord, Step, VolumeRecord } from '../model/records.ts'
import { draftOf, need, rest, type StatusInput } from './draft.ts'
import { isExpectedVolume } from './mounts.ts'
import type { SandboxDecision, SandboxView, VolumeDecision, VolumeView } from './types.ts'

/**
 * What a hold keeps back, and the only place that decides it. While one lasts:
 *
 * - Nothing is removed, and nothing that only prepares a removal is done either (a stop for an update, the recorded
 *   consent to remove a volume). Nothing expires.
 * - A wish that is older than the hold is not acted upon, because the store may be older than what people did since:
 *   what runs stays running, what was stopped or deleted meanwhile is not made again. One exception: what ended since
 *   the hold began is started again as ever, because no wish that was lost can have been the cause.
 * - What people ask for from then on is done.
 */

/** How soon a sandbox whose newer instance is in the way is looked at again, ms; a person has to act meanwhile. */
const STRANGER_RETRY_MS = 30_000

const isRemoval = (step: Step): boolean =>
  step.kind === 'remove-instance' ||
  step.kind === 'remove-volume' ||
  (step.kind === 'stop-instance' && (step.why === 'update' || step.why === 'delete'))

const isOlder = (record: SandboxRecord, hold: Hold): boolean => record.desiredAt < hold.since

/** Whether the sweep may remove what is left of finished deletes. */
export function mayRemove(hold: Hold | null): boolean {
  return hold === null
}

/** Whether the clock's reading and the hold let anything expire. */
export function mayExpire(clockTrusted: boolean, hold: Hold | null): boolean {
  return clockTrusted && hold === null
}

/** More than a note of what was seen: an instance or a volume is given up, or another one is planned in its place. */
function changesObjects(view: SandboxView, d: SandboxDecision): boolean {
  const moved = d.changedVolumes.some((v) => {
    const before = view.volumes.find((row) => row.uid === v.uid)
    return before === undefined || before.physicalName !== v.physicalName || before.state !== v.state
  })
  const finished = d.record.deletedAt !== null && view.record.deletedAt === null
  const letGo = d.record.instance === null && view.record.instance !== null
  return moved || finished || letGo || d.newVolumes.length > 0 || d.tombstones.length > 0
}

/** By the engine's clock; an end of which the engine cannot tell the time counts as one from before. */
function endedSince(view: SandboxView, hold: Hold): boolean {
  const facts = view.observed.known ? view.observed.value.instance : null
  return (facts?.finishedAt ?? 0) > hold.since || (facts?.startedAt ?? 0) > hold.since
}

/** Nothing of the decision is kept: the next pass decides it again from the same facts. */
function instead(view: SandboxView, status: StatusInput, wakeAt: number | null = null): SandboxDecision {
  return rest(draftOf(view), status, wakeAt)
}

function heldStatus(view: SandboxView, hold: Hold, d: SandboxDecision, removal: boolean): StatusInput {
  const why = removal
    ? 'removals are held'
    : 'this wish is older than that, so it is not acted upon: start or stop it to say what is wanted now'
  const step = d.step?.kind ?? d.record.status.next
  return {
    phase: view.record.desired === 'deleted' ? 'Stopping' : 'Blocked',
    reason: 'Held',
    message: `Nothing is done about it: ${holdCause(hold)}; ${why}. \`holdfast rebuild --confirm\` ends the hold.`,
    difference: d.record.status.difference || 'the engine does not have it as it is wanted',
    next: step === '' ? 'confirm (yours to say)' : `${step}, once confirmed`,
  }
}

/** The engine has an instance of this sandbox that the store does not know: a second one would share its volumes. */
function strangerStatus(view: SandboxView, strangers: readonly string[]): StatusInput {
  const names = strangers.join(', ')
  return {
    phase: 'Blocked',
    reason: 'NewerInstance',
    message: `The engine has ${names} of this sandbox, which this store does not know: it is newer than the backup. No second one is made beside it, and its data is untouched. Take it over with \`holdfast rebuild\` while the server is stopped, or remove it from the engine.`,
    difference: 'the engine has a newer instance',
    next: 'observe',
    nextAt: view.now + STRANGER_RETRY_MS,
  }
}

/** The decision, or what takes its place while a hold or a newer instance keeps it back. */
export function withhold(view: SandboxView, d: SandboxDecision): SandboxDecision {
  if (d.need !== undefined) return d
  const { hold } = view
  if (hold !== null && d.step !== null && isRemoval(d.step))
    return instead(view, heldStatus(view, hold, d, true))
  const makes = d.step?.kind === 'create-instance' || d.step?.kind === 'start-instance'
  const changes = changesObjects(view, d)
  if (hold !== null && isOlder(view.record, hold)) {
    const startsAgain = d.step?.kind === 'start-instance' && endedSince(view, hold)
    if (changes || (d.step !== null && !startsAgain))
      return instead(view, heldStatus(view, hold, d, view.record.desired === 'deleted'))
  }
  if (!makes && !(hold !== null && changes)) return d
  const undecided = hold === null ? [] : volumesToKeep(view, hold)
  if (undecided.length > 0) {
    const waiting = instead(view, {
      phase: 'Starting',
      reason: 'WaitingForVolume',
      message: 'What its volumes hold is kept; that is being noted first.',
      difference: 'there is no instance yet',
      next: 'observe',
    })
    return { ...waiting, kicks: undecided.map((v) => volumeKey(v.uid)) }
  }
  if (view.strangers === undefined) return need(view, 'strangers')
  if (view.strangers.length === 0) return d
  return instead(view, strangerStatus(view, view.strangers), view.now + STRANGER_RETRY_MS)
}

/** The same for a volume. */
export function withholdVolume(view: VolumeView, d: VolumeDecision): VolumeDecision {
  const { hold } = view
  if (hold === null || d.need !== undefined) return d
  const gives =
    d.step?.kind === 'remove-volume' ||
    d.tombstones.length > 0 ||
    (d.record.state !== view.record.state && (d.record.state === 'removing' || d.record.state === 'removed'))
  if (gives) return volumeInstead(view, `Its removal is held: ${holdCause(hold)}.`)
  if (d.step?.kind === 'create-volume' && !isWanted(view, hold))
    return volumeInstead(view, `It is not made: ${holdCause(hold)}, and nothing has asked for it since.`)
  const facts = view.observed.known ? (view.observed.value.get(d.record.physicalName) ?? null) : null
  if (!mayHoldData(d.record, facts, hold, view.installation)) return d
  return {
    ...d,
    record: { ...d.record, seed: 'seeded' },
    kicks: [...d.kicks, ...view.holders.map((h) => sandboxKey(h.id))],
  }
}

function volumeInstead(view: VolumeView, message: string): VolumeDecision {
  return {
    record: { ...view.record, message },
    guardNoHolders: false,
    settled: [],
    tombstones: [],
    events: [],
    step: null,
    retryOf: null,
    kicks: [],
    wakeAt: null,
  }
}

/** A volume that was asked for since the hold began, by itself or through a sandbox. */
function isWanted(view: VolumeView, hold: Hold): boolean {
  return view.record.createdAt >= hold.since || view.holders.some((h) => !isOlder(h, hold))
}

/**
 * A volume that the store believes to be unseeded, and that the engine has: it may have been seeded and written to
 * since the backup. It is never seeded over, and never made anew as a half-seeded one would be.
 */
function mayHoldData(
  record: VolumeRecord,
  facts: VolumeFacts | null,
  hold: Hold,
  installation: string,
): boolean {
  return heldVolumeNeedsPass(record, hold) && facts !== null && isExpectedVolume(record, facts, installation)
}

function volumesToKeep(view: SandboxView, hold: Hold): readonly VolumeRecord[] {
  if (!view.observed.known) return []
  const seen = view.observed.value.volumes
  return view.volumes.filter((v) => mayHoldData(v, seen.get(v.physicalName) ?? null, hold, view.installation))
}

/** True for a volume whose row must be looked at while the hold lasts, though nothing else gives reason to. */
export function heldVolumeNeedsPass(record: VolumeRecord, hold: Hold | null): boolean {
  return (
    hold !== null && record.createdAt < hold.since && (record.seed === 'pending' || record.seed === 'seeding')
  )
}
