import { volumeKey } from '../model/keys.ts'
import type { InstanceFacts } from '../model/facts.ts'
import { isExactly } from '../model/labels.ts'
import type { InstanceRef } from '../model/records.ts'

import { isAbout, LATE_STOP_MS } from './acts.ts'
import { planCreate, remade } from './create.ts'
import { planDelete } from './delete.ts'
import { draftOf, rest, retire, tell, type Draft } from './draft.ts'
import { withhold } from './hold.ts'
import { planPresent } from './present.ts'
import { dueAt, restartDelayMs, BACKOFF_MAX_MS, BREAKER_PROBE_MS } from './backoff.ts'
import { askedExit } from './exit.ts'
import { doubtsByClock, rowsByClock } from './limits.ts'
import { isExpectedVolume, volumeMounts } from './mounts.ts'
import { isTwin } from './sweep.ts'
import { openCreateUntil, settledAs, settleInstanceStep } from './settle.ts'
import type { SandboxDecision, SandboxView } from './types.ts'

/** How soon a renamed instance is looked at again, ms. */
const RENAMED_RETRY_MS = 30_000

/** Until when a create that was sent can still land; null when none can. */
function createUntil(view: SandboxView, draft: Draft): number | null {
  return openCreateUntil(view.open, view.now, draft.record.createDoubtUntil)
}

/**
 * Decides the one next thing for a sandbox from what is wanted, what was seen, and which steps are open. Pure: the
 * same view gives the same decision. It infers only the next step, because the next pass looks again.
 *
 * Invariants kept here:
 * - An observation that failed leads to no step.
 * - `record.instance` is let go only when that instance is confirmed absent; so two never live at once.
 * - Nothing is started unless every mount is the expected volume.
 */
export function planSandbox(given: SandboxView): SandboxDecision {
  const { now } = given
  const view = {
    ...given,
    record: doubtsByClock(given.record, now),
    open: rowsByClock(given.open, now),
  }
  const draft = draftOf(view)
  if (view.record.deletedAt !== null) return rest(draft, view.record.status)
  if (!view.observed.known) return unknown(view, draft)
  const renamed = planRenamed(view, draft)
  if (renamed !== null) return renamed
  const decision = decide(view, draft)
  return withhold(view, decision.need === undefined ? settleLeftovers(view, decision) : decision)
}

function decide(view: SandboxView, draft: Draft): SandboxDecision {
  const facts = ownFacts(view, draft)
  settleOpen(view, draft, facts)
  if (draft.record.desired === 'deleted') return planDelete(view, draft, facts)

  noteSeeded(view, draft, facts)
  retireRemoved(view, draft, facts)
  if (recoverIfAsked(view, draft, facts)) {
    return rest(draft, {
      phase: 'Starting',
      reason: 'WaitingForVolume',
      message: 'New volumes take the place of those that are gone.',
      difference: 'volumes are being made',
      next: 'create-volume',
    })
  }

  const held = holdForBackoff(view, draft)
  if (held !== null) return held

  const ref = draft.record.instance
  if (ref === null || facts === null) return planAbsent(view, draft)
  return planPresent(view, draft, ref, facts)
}

function unknown(view: SandboxView, draft: Draft): SandboxDecision {
  const why = view.observed.known ? '' : view.observed.error
  return rest(draft, {
    phase: 'Unknown',
    reason: 'EngineUnreachable',
    message: `The engine ${view.record.engine} could not be asked: ${why}. Nothing is changed until it answers.`,
    difference: 'not known',
    next: 'observe',
    nextAt: null,
  })
}

/**
 * Our instance under another name: somebody renamed it. It is neither ours to touch by DESIGN §1.4 nor absent, and a
 * second one beside it would be two writers on one volume.
 */
function planRenamed(view: SandboxView, draft: Draft): SandboxDecision | null {
  const ref = draft.record.instance
  const facts = view.observed.known ? view.observed.value.instance : null
  if (ref === null || facts === null || facts.id !== ref.engineId || facts.name === ref.name) return null
  return rest(
    draft,
    {
      phase: 'Blocked',
      reason: 'InstanceRenamed',
      message: `Its instance ${ref.name} was renamed to ${facts.name}. Rename it back or remove it; until then nothing is done, and its data is untouched.`,
      difference: 'the instance has another name',
      next: 'observe',
      nextAt: view.now + RENAMED_RETRY_MS,
    },
    view.now + RENAMED_RETRY_MS,
  )
}

/** The facts of *our* instance: an object of somebody else under its name reads as ours being absent. */
function ownFacts(view: SandboxView, draft: Draft): InstanceFacts | null {
  if (!view.observed.known) return null
  const facts = view.observed.value.instance
  const ref = draft.record.instance
  if (facts === null || ref === null) return null
  if (!isExactly(facts, { installation: view.installation, name: ref.name, uid: ref.uid })) return null
  return isTwin(ref, facts) ? null : facts
}

/** Closes the rows whose effect is seen, and those no longer wanted whose limit has passed. */
function settleOpen(view: SandboxView, draft: Draft, facts: InstanceFacts | null): void {
  for (const row of view.open) {
    if (row.step.kind === 'pull-image') {
      if (draft.record.desired !== 'running' || row.step.image !== draft.record.spec.image) {
        draft.settled.push(settledAs(row, 'abandoned', 'the image is no longer wanted'))
      }
      continue
    }
    // An instance is let go of only when it is absent: what was to be done to it is moot, and must not be retried.
    if (row.step.kind !== 'create-instance' && !isAbout(row.step, draft.record.instance)) {
      draft.settled.push(settledAs(row, 'abandoned', 'its instance is gone'))
      continue
    }
    if (settleInstanceStep(row, facts, view.installation).kind === 'done') {
      draft.settled.push(settledAs(row, 'done', 'seen'))
      if (row.step.kind === 'stop-instance') {
        // It ended, but maybe by something else: the stop itself was never answered, and can still land.
        const doubt = Math.max(draft.record.stopDoubtUntil ?? 0, row.deadlineAt + LATE_STOP_MS)
        draft.record = { ...draft.record, stopDoubtUntil: doubt > view.now ? doubt : null }
      }
      afterDone(draft, row.step.kind, facts)
    }
  }
}

/** Rows that neither happened nor are retried: closed once their limit has passed, since nothing can land any more. */
function settleLeftovers(view: SandboxView, d: SandboxDecision): SandboxDecision {
  const left = view.open.filter((r) => r.id !== d.retryOf && d.settled.every((s) => s.id !== r.id))
  const over = left.filter((r) => r.deadlineAt <= view.now)
  // A stop that is given up can land as late as one that is retried.
  const lateStops = over
    .filter((r) => r.step.kind === 'stop-instance')
    .map((r) => r.deadlineAt + LATE_STOP_MS)
  const doubt = Math.max(d.record.stopDoubtUntil ?? 0, ...lateStops)
  const record = lateStops.length > 0 && doubt > view.now ? { ...d.record, stopDoubtUntil: doubt } : d.record
  const waits = left.filter((r) => r.deadlineAt > view.now).map((r) => r.deadlineAt)
  const settled = [
    ...d.settled,
    ...over.map((r) => settledAs(r, 'abandoned', 'no longer wanted, and without effect')),
  ]
  const wakeAt =
    d.step === null && waits.length > 0 ? Math.min(d.wakeAt ?? Number.POSITIVE_INFINITY, ...waits) : d.wakeAt
  return { ...d, record, settled, wakeAt }
}

/** What follows from a step that was seen to have happened, also when its reply was lost. */
function afterDone(draft: Draft, kind: string, facts: InstanceFacts | null): void {
  const ref = draft.record.instance
  if (ref === null) return
  if (kind === 'create-instance' && facts !== null && ref.engineId === null) {
    draft.record = { ...draft.record, instance: { ...ref, engineId: facts.id } }
  }
  if (kind === 'stop-instance' && facts !== null && facts.state === 'stopped' && facts.startedAt !== null) {
    draft.record = { ...draft.record, lastExit: askedExit(ref, facts, facts.finishedAt ?? 0) }
  }
}

/** An instance that exists was seeded before it became visible: its volumes are seeded once and for ever. */
function noteSeeded(view: SandboxView, draft: Draft, facts: InstanceFacts | null): void {
  const ref = draft.record.instance
  if (facts === null || ref === null) return
  if (ref.engineId === null) draft.record = { ...draft.record, instance: { ...ref, engineId: facts.id } }
  for (const row of view.volumes) {
    if (row.seed !== 'seeding') continue
    if (facts.mounts.some((m) => m.volume === row.physicalName)) {
      draft.changedVolumes.set(row.uid, { ...row, seed: 'seeded' })
    }
  }
}

/** Lets go of an instance that we removed ourselves (an update, a mount that was wrong). */
function retireRemoved(view: SandboxView, draft: Draft, facts: InstanceFacts | null): void {
  const ref = draft.record.instance
  if (ref === null || facts !== null || ref.engineId === null) return
  const removed = view.open.some((r) => r.step.kind === 'remove-instance' && r.step.uid === ref.uid)
  if (removed) retire(view, draft, ref)
}

/**
 * A wish to start (or restart policy `always`) lets an instance that is gone be replaced; only `recover` lets volumes
 * that are gone be replaced as well. Returns true when volumes have to be made first.
 */
function recoverIfAsked(view: SandboxView, draft: Draft, facts: InstanceFacts | null): boolean {
  const record = draft.record
  if (record.desired !== 'running' || createUntil(view, draft) !== null) return false
  const asked = record.recoverSeq > record.recoveredSeq
  const ref = record.instance
  const gone = ref !== null && ref.engineId !== null && facts === null
  draft.record = { ...record, recoveredSeq: record.recoverSeq, mayReplaceVolumes: false }
  if (gone && (asked || record.restartPolicy.kind === 'always')) {
    tell(
      draft,
      'Warning',
      'InstanceLost',
      `Instance ${ref.number} is gone from the engine; instance ${record.instanceSeq + 1} takes its place on the same volumes.`,
    )
    retire(view, draft, ref)
    if (!asked) slowDown(view, draft)
  }
  const absent = facts === null || facts.state === 'stopped'
  return record.mayReplaceVolumes && absent && replaceLostVolumes(view, draft)
}

/** Somebody who removes it again and again meets a growing wait, as a workload that ends again and again does. */
function slowDown(view: SandboxView, draft: Draft): void {
  const restarts = draft.record.restarts + 1
  const nextAt = view.now + (restarts === 1 ? 0 : restartDelayMs(restarts))
  const error = 'its instance was removed from the engine'
  const backoff = { attempts: restarts, nextAt, error, code: 'lost', at: view.now }
  draft.record = { ...draft.record, restarts, backoff }
}

/** A volume that is gone stays gone: the person who asked to recover goes on with a new one, and is told. */
function replaceLostVolumes(view: SandboxView, draft: Draft): boolean {
  if (!view.observed.known) return false
  let replaced = false
  for (const mount of volumeMounts(draft.record)) {
    const row = view.volumes.find((v) => v.uid === mount.volume)
    if (row === undefined || !row.managed || (row.state !== 'lost' && row.state !== 'ready')) continue
    const facts = view.observed.value.volumes.get(row.physicalName)
    if (facts === undefined) continue
    if (facts !== null && isExpectedVolume(row, facts, view.installation)) continue
    // The former name is not marked for removal: should it come back, its data is somebody's to look at.
    const seed = row.kind === 'claim' ? 'none' : 'pending'
    draft.changedVolumes.set(row.uid, { ...remade(row, view.now), discarded: row.discarded, seed })
    draft.kicks.add(volumeKey(row.uid))
    replaced = true
    tell(
      draft,
      'Warning',
      'VolumeReplaced',
      `The volume ${row.physicalName} was gone with its data; a new, empty one takes its place because recover was asked for.`,
    )
  }
  return replaced
}

/** After failures the key waits; the breaker makes the wait long. The status keeps the cause. */
function holdForBackoff(view: SandboxView, draft: Draft): SandboxDecision | null {
  const { backoff, breaker } = draft.record
  if (backoff === null || draft.record.desired !== 'running') return null
  const retryAt = dueAt(backoff.nextAt, BACKOFF_MAX_MS, view.now)
  const at =
    breaker === null ? retryAt : Math.max(retryAt, dueAt(breaker.probeAt, BREAKER_PROBE_MS, view.now))
  if (at <= view.now) return null
  const refused = backoff.code === 'invalid'
  return rest(
    draft,
    {
      phase: refused || breaker !== null ? 'Failed' : 'Blocked',
      reason: breaker === null ? reasonOf(backoff.code) : 'TooManyFailures',
      message: `${backoff.error} (attempt ${backoff.attempts}; the next follows by itself)`,
      difference: 'the last step failed',
      next: 'retry',
      nextAt: at,
    },
    at,
  )
}

function reasonOf(code: string): string {
  const words: Readonly<Record<string, string>> = {
    'image-missing': 'ImageMissing',
    conflict: 'NameCollision',
    invalid: 'EngineRefused',
    denied: 'EngineDenied',
    'disk-full': 'DiskFull',
    wedged: 'EngineWedged',
    unsupported: 'Unsupported',
  }
  return words[code] ?? 'EngineError'
}

/** No instance is there. */
function planAbsent(view: SandboxView, draft: Draft): SandboxDecision {
  const record = draft.record
  const ref = record.instance
  if (ref !== null && ref.engineId !== null) return lost(view, draft, ref)
  if (record.desired === 'running') return planCreate(view, draft)

  const until = createUntil(view, draft)
  if (until !== null) {
    return rest(
      draft,
      {
        phase: 'Stopping',
        reason: 'OutcomeUnknown',
        message: 'A create was under way when the stop came, and its outcome is not known yet.',
        difference: 'an instance may appear',
        next: 'observe',
        nextAt: until,
      },
      until,
    )
  }
  if (ref !== null) retire(view, draft, ref)
  draft.record = { ...draft.record, observedGeneration: record.generation }
  return rest(draft, {
    phase: 'Stopped',
    reason: 'NoInstance',
    message: 'It is stopped and has no instance; `start` makes one.',
  })
}

/** The record stays, with what survives; only `recover`, or the policy, makes the next instance. */
function lost(view: SandboxView, draft: Draft, ref: InstanceRef): SandboxDecision {
  const until = createUntil(view, draft)
  if (until !== null) {
    return rest(
      draft,
      {
        phase: 'Unknown',
        reason: 'OutcomeUnknown',
        message: 'A create is under way; its outcome is not known yet.',
        difference: 'not known',
        next: 'observe',
        nextAt: until,
      },
      until,
    )
  }
  const last = draft.record.lastExit
  // Whoever removed the instance ended it as well: no second look can make this exit more certain.
  if (last?.class === 'provisional')
    draft.record = { ...draft.record, lastExit: { ...last, class: 'external' } }
  const survivors = view.volumes.filter((v) => v.state === 'ready').map((v) => v.claim)
  if (draft.record.status.phase !== 'Lost') {
    tell(
      draft,
      'Warning',
      'InstanceLost',
      `Instance ${ref.number} (${ref.name}) is gone from the engine. Surviving volumes: ${survivors.join(', ') || 'none'}.`,
    )
  }
  const kept =
    survivors.length === 0 ? 'No volume survives' : `These volumes survive: ${survivors.join(', ')}`
  // A stop needs no instance: the wish is applied, although something is missing.
  if (draft.record.desired !== 'running') {
    draft.record = { ...draft.record, observedGeneration: draft.record.generation }
  }
  return rest(draft, {
    phase: 'Lost',
    reason: 'InstanceGone',
    message: `Its instance was removed behind Holdfast's back. ${kept}. \`recover\` makes the next instance on them.`,
    difference: 'the instance is gone',
    next: 'recover (yours to ask)',
  })
}
