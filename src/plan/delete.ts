import { volumeKey } from '../model/keys.ts'
import type { InstanceFacts } from '../model/facts.ts'
import { isAbout, reuse } from './acts.ts'
import { BACKOFF_MAX_MS, dueAt } from './backoff.ts'
import { rest, retire, take, tell, type Draft } from './draft.ts'
import { volumeMounts } from './mounts.ts'
import { openCreateUntil, settledAs } from './settle.ts'
import type { SandboxDecision, SandboxView } from './types.ts'

/** How long a sandbox whose create was refused for good stays readable as Failed, ms. */
export const REFUSED_READABLE_MS = 3_600_000

/**
 * The way to gone: the instance is removed by id, then confirmed absent, and only then the row becomes a tombstone.
 * Volumes follow by their own rule, which looks at this row.
 */
export function planDelete(view: SandboxView, draft: Draft, facts: InstanceFacts | null): SandboxDecision {
  const record = draft.record
  const ref = record.instance
  const deleting = (message: string, next: string, nextAt: number | null = null) => ({
    phase: 'Stopping' as const,
    reason: 'Deleting',
    message,
    difference: 'it is to be gone',
    next,
    nextAt,
  })
  if (facts !== null && ref !== null) {
    const waiting = waitForBackoff(view, draft)
    if (waiting !== null) return waiting
    return removePresent(view, draft, facts, deleting)
  }
  const until = openCreateUntil(view.open, view.now, draft.record.createDoubtUntil)
  if (until !== null) {
    const text =
      'A create was under way when the delete came; its outcome is waited for, so that nothing is left behind.'
    return rest(draft, deleting(text, 'observe', until), until)
  }
  return gone(view, draft)
}

function removePresent(
  view: SandboxView,
  draft: Draft,
  facts: InstanceFacts,
  deleting: (message: string, next: string) => Parameters<typeof take>[1],
): SandboxDecision {
  const ref = draft.record.instance
  if (ref === null) return gone(view, draft)
  const wasRefused = draft.record.backoff !== null && draft.record.backoff.attempts >= 2
  const wasAsked =
    draft.settled.length === 0 &&
    view.open.some((r) => r.step.kind === 'stop-instance' && isAbout(r.step, ref) && r.attempts >= 2)
  if (facts.state === 'running' && !facts.paused && keepsData(view, draft) && !wasAsked && !wasRefused) {
    const step = {
      kind: 'stop-instance',
      name: ref.name,
      uid: ref.uid,
      engineId: facts.id,
      graceMs: draft.record.stopGraceMs,
      why: 'delete',
    } as const
    return take(
      draft,
      deleting('It is asked to end, because volumes outlive it.', 'stop-instance'),
      step,
      reuse(view, draft, 'stop-instance'),
    )
  }
  const step = {
    kind: 'remove-instance',
    name: ref.name,
    uid: ref.uid,
    engineId: facts.id,
    why: 'delete',
  } as const
  return take(
    draft,
    deleting('Its instance is being removed.', 'remove-instance'),
    step,
    reuse(view, draft, 'remove-instance'),
  )
}

/** Data that outlives the sandbox deserves an orderly end of its writer; data that goes with it does not need one. */
function keepsData(view: SandboxView, draft: Draft): boolean {
  return volumeMounts(draft.record).some((m) => {
    if (m.readOnly) return false
    const row = view.volumes.find((v) => v.uid === m.volume)
    return row !== undefined && (row.retention === 'retain' || row.owner !== draft.record.id)
  })
}

function waitForBackoff(view: SandboxView, draft: Draft): SandboxDecision | null {
  const backoff = draft.record.backoff
  if (backoff === null || dueAt(backoff.nextAt, BACKOFF_MAX_MS, view.now) <= view.now) return null
  return rest(
    draft,
    {
      phase: 'Stopping',
      reason: 'DeleteFailed',
      message: `Its instance could not be removed: ${backoff.error}. Its volumes stay until it is gone. It is tried again.`,
      difference: 'it is to be gone',
      next: 'retry',
      nextAt: backoff.nextAt,
    },
    backoff.nextAt,
  )
}

/** Every instance is confirmed absent. */
function gone(view: SandboxView, draft: Draft): SandboxDecision {
  for (const row of view.open) {
    if (draft.settled.every((s) => s.id !== row.id)) {
      draft.settled.push(settledAs(row, 'abandoned', 'the sandbox is gone'))
    }
  }
  const ref = draft.record.instance
  if (ref !== null) retire(view, draft, ref)
  for (const mount of volumeMounts(draft.record)) draft.kicks.add(volumeKey(mount.volume))

  const readableUntil =
    draft.record.desiredReason === 'create-failed' ? draft.record.desiredAt + REFUSED_READABLE_MS : view.now
  if (readableUntil > view.now) {
    // Its name is free for the corrected one.
    draft.record = { ...draft.record, name: null }
    return rest(
      draft,
      {
        phase: 'Failed',
        reason: 'CreateRefused',
        message:
          draft.record.status.reason === 'CreateRefused'
            ? draft.record.status.message
            : `The engine refused it: ${draft.record.backoff?.error ?? 'no reason was given'}. Nothing was started.`,
        difference: '',
      },
      readableUntil,
    )
  }
  draft.tombstones.push({
    uid: draft.record.id,
    kind: 'sandbox',
    name: draft.record.name ?? draft.record.id,
    engine: draft.record.engine,
    at: view.now,
  })
  draft.record = {
    ...draft.record,
    deletedAt: view.now,
    observedGeneration: draft.record.generation,
    backoff: null,
    breaker: null,
  }
  tell(draft, 'Normal', 'Deleted', `It is gone (${draft.record.desiredReason}).`)
  return rest(draft, {
    phase: 'Terminated',
    reason: 'Deleted',
    message: `Deleted (${draft.record.desiredReason}).`,
  })
}
