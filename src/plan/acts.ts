import type { InstanceFacts } from '../model/facts.ts'
import type { InstanceRef, JournalRow, Step } from '../model/records.ts'
import { take, type Draft } from './draft.ts'
import type { SandboxDecision, SandboxView } from './types.ts'

/** Whether a step is about this instance, and not about one that was there before it. */
export function isAbout(step: Step, ref: InstanceRef | null): boolean {
  return 'uid' in step && step.uid === ref?.uid
}

/** The journal row that a step of this kind would retry: a retry takes the row's own arguments, so it must be about the same. */
export function reuse(view: SandboxView, draft: Draft, kind: Step['kind']): number | null {
  const row: JournalRow | undefined = view.open.find(
    (r) =>
      r.step.kind === kind &&
      (r.step.kind === 'pull-image' || isAbout(r.step, draft.record.instance)) &&
      draft.settled.every((s) => s.id !== r.id),
  )
  return row?.id ?? null
}

export type Words = Parameters<typeof take>[1]

/** A hung engine can carry out a stop long after its call was given up; an end until then is taken for that stop, ms. */
export const LATE_STOP_MS = 120_000

export function stop(
  view: SandboxView,
  draft: Draft,
  ref: InstanceRef,
  facts: InstanceFacts,
  why: string,
  status: Words,
): SandboxDecision {
  const at = { name: ref.name, uid: ref.uid, engineId: facts.id }
  // Which start it ends is remembered first, so that the exit is known as asked for whenever it is seen.
  const retried = view.open.find((r) => r.step.kind === 'stop-instance' && isAbout(r.step, ref))
  const retriedUntil = retried === undefined ? 0 : retried.deadlineAt + LATE_STOP_MS
  const doubt = Math.max(draft.record.stopDoubtUntil ?? 0, retriedUntil)
  draft.record = {
    ...draft.record,
    instance: { ...ref, engineId: facts.id, startedAt: facts.startedAt },
    stopDoubtUntil: doubt > view.now ? doubt : null,
  }
  if (facts.paused)
    return take(draft, status, { kind: 'unpause-instance', ...at }, reuse(view, draft, 'unpause-instance'))
  const step = { kind: 'stop-instance', ...at, graceMs: draft.record.stopGraceMs, why } as const
  return take(draft, status, step, reuse(view, draft, 'stop-instance'))
}

export function remove(
  view: SandboxView,
  draft: Draft,
  ref: InstanceRef,
  facts: InstanceFacts,
  why: string,
  status: Words,
): SandboxDecision {
  const step = { kind: 'remove-instance', name: ref.name, uid: ref.uid, engineId: facts.id, why } as const
  return take(draft, status, step, reuse(view, draft, 'remove-instance'))
}
