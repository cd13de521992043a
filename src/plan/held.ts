import type { InstanceFacts } from '../model/facts.ts'
import { LABEL } from '../model/labels.ts'
import type { InstanceRef } from '../model/records.ts'
import { isDrift } from '../model/spec.ts'
import { remove, reuse, stop } from './acts.ts'
import { BACKOFF_MAX_MS, dueAt } from './backoff.ts'
import { need, rest, take, tell, want, type Draft, type StatusInput } from './draft.ts'
import { askedExit, classifyExit, isDealtWith } from './exit.ts'
import type { SandboxDecision, SandboxView } from './types.ts'

/** Wanted paused. */
export function keepPaused(
  view: SandboxView,
  draft: Draft,
  ref: InstanceRef,
  facts: InstanceFacts,
): SandboxDecision {
  if (facts.state === 'stopped') return pauseEnded(view, draft, ref, facts)
  if (!facts.paused) {
    const waiting = holdFailed(view, draft, {
      phase: 'Pausing',
      reason: 'PauseFailed',
      message: 'It could not be paused',
    })
    if (waiting !== null) return waiting
    return take(
      draft,
      { phase: 'Pausing', reason: 'Pausing', message: 'It is being frozen.', difference: 'it still runs' },
      { kind: 'pause-instance', name: ref.name, uid: ref.uid, engineId: facts.id },
      reuse(view, draft, 'pause-instance'),
    )
  }
  if (draft.record.status.phase !== 'Paused')
    tell(draft, 'Normal', 'Paused', `Instance ${ref.number} is frozen.`)
  draft.record = {
    ...draft.record,
    instance: { ...ref, engineId: facts.id, run: facts.run, startedAt: facts.startedAt },
    // A new spec waits until it is resumed: it is not applied, and not claimed to be.
    observedGeneration: isDrift(facts.labels[LABEL.specHash] ?? '', draft.record.specHash)
      ? draft.record.observedGeneration
      : draft.record.generation,
    backoff: null,
  }
  return rest(draft, { phase: 'Paused', reason: 'Paused', message: 'It is frozen; `resume` lets it go on.' })
}

/** It ended while it was to be paused: with its engine, which loses what was in memory, or in another way. */
function pauseEnded(
  view: SandboxView,
  draft: Draft,
  ref: InstanceRef,
  facts: InstanceFacts,
): SandboxDecision {
  const verdict = classifyExit(ref, facts, draft.record.lastExit, false, view.exitCause, view.now)
  if (verdict.kind === 'need-cause') return need(view, 'exit-cause')
  draft.record = { ...draft.record, lastExit: verdict.exit }
  if (verdict.kind === 'provisional') {
    const message = 'Its process ended; whether by itself or with the engine is being made sure of.'
    const words = {
      phase: 'Pausing',
      reason: 'ExitSeen',
      message,
      difference: 'it is not running',
      next: 'observe',
    } as const
    return rest(draft, { ...words, nextAt: verdict.certainAt }, verdict.certainAt)
  }
  const withEngine = verdict.exit.class === 'engine'
  want(draft, 'stopped', withEngine ? 'engine-restart' : 'exited', view.now)
  const text = withEngine
    ? 'It was paused and its processes are gone: what was in memory is lost, its volumes are not. `resume` starts it.'
    : 'Its process ended before it was paused, or while it was.'
  tell(draft, 'Warning', withEngine ? 'PauseLost' : 'Exited', text)
  return keepStopped(view, draft, ref, facts)
}

/** Wanted stopped. */
export function keepStopped(
  view: SandboxView,
  draft: Draft,
  ref: InstanceRef,
  facts: InstanceFacts,
): SandboxDecision {
  const record = draft.record
  if (facts.state === 'running') {
    const waiting = holdFailed(view, draft, {
      phase: 'Stopping',
      reason: 'StopFailed',
      message: 'It could not be stopped',
    })
    if (waiting !== null) return waiting
    return stop(view, draft, ref, facts, record.desiredReason, {
      phase: 'Stopping',
      reason: 'Stopping',
      message: 'It is being stopped.',
      difference: 'it still runs',
    })
  }
  if (isDrift(facts.labels[LABEL.specHash] ?? '', record.specHash)) {
    const waiting = holdFailed(view, draft, {
      phase: 'Stopped',
      reason: 'UpdateFailed',
      message: 'Its old instance could not be removed',
    })
    if (waiting !== null) return waiting
    const status = {
      phase: 'Stopped',
      reason: 'Updating',
      message: 'Its old instance makes way; the next start makes one of the new spec.',
      difference: 'the instance was made from an older spec',
    } as const
    return remove(view, draft, ref, facts, 'update', status)
  }
  if (facts.startedAt !== null && !isDealtWith(ref, facts, record.lastExit)) {
    draft.record = { ...record, lastExit: askedExit(ref, facts, view.now) }
  }
  if (record.status.phase !== 'Stopped')
    tell(draft, 'Normal', 'Stopped', `Instance ${ref.number} is stopped (${record.desiredReason}).`)
  draft.record = {
    ...draft.record,
    instance: { ...ref, engineId: facts.id, startedAt: facts.startedAt },
    observedGeneration: record.generation,
    backoff: null,
  }
  return rest(draft, { phase: 'Stopped', reason: stoppedReason(draft), message: stoppedMessage(draft) })
}

/** After a failed step the next try waits; null when it is due. */
function holdFailed(view: SandboxView, draft: Draft, words: StatusInput): SandboxDecision | null {
  const { backoff } = draft.record
  if (backoff === null) return null
  const at = dueAt(backoff.nextAt, BACKOFF_MAX_MS, view.now)
  if (at <= view.now) return null
  const message = `${words.message}: ${backoff.error}. It is tried again.`
  return rest(draft, { ...words, message, difference: 'the last step failed', next: 'retry', nextAt: at }, at)
}

function stoppedReason(draft: Draft): string {
  const words: Partial<Record<typeof draft.record.desiredReason, string>> = {
    exited: 'Exited',
    oom: 'OutOfMemory',
    external: 'StoppedByOther',
    idle: 'Idle',
    'engine-restart': 'EngineRestarted',
    rebuilt: 'Rebuilt',
  }
  return words[draft.record.desiredReason] ?? 'Stopped'
}

function stoppedMessage(draft: Draft): string {
  const code = draft.record.lastExit?.code
  const status = code === null || code === undefined ? '' : ` with status ${code}`
  const words: Partial<Record<typeof draft.record.desiredReason, string>> = {
    exited: `Its process ended${status}. \`start\` runs it again.`,
    oom: 'It ran out of memory. Its volumes are untouched; `update --memory` gives it more, `start` runs it again.',
    rebuilt: 'It was not running when the store was rebuilt. `start` runs it again.',
    external: `Somebody else stopped it${status}. \`start\` runs it again.`,
    'engine-restart':
      'It was paused when its engine restarted: what was in memory is lost, its volumes are not. `resume` starts it.',
  }
  return words[draft.record.desiredReason] ?? 'It is stopped. `start` runs it again.'
}
