import type { InstanceFacts } from '../model/facts.ts'
import { LABEL } from '../model/labels.ts'
import type { InstanceRef } from '../model/records.ts'
import { isDrift } from '../model/spec.ts'
import { remove, reuse, stop } from './acts.ts'
import { RESTART_RESET_MS } from './backoff.ts'
import { need, rest, take, tell, type Draft } from './draft.ts'
import { bringUp } from './ends.ts'
import { keepPaused, keepStopped } from './held.ts'
import type { SandboxDecision, SandboxView } from './types.ts'

/** Our instance exists: bring it to what is wanted. */
export function planPresent(
  view: SandboxView,
  draft: Draft,
  ref: InstanceRef,
  facts: InstanceFacts,
): SandboxDecision {
  switch (draft.record.desired) {
    case 'running':
      if (isDrift(facts.labels[LABEL.specHash] ?? '', draft.record.specHash))
        return replace(view, draft, ref, facts)
      return facts.state === 'running'
        ? keepRunning(view, draft, ref, facts)
        : bringUp(view, draft, ref, facts)
    case 'paused':
      return keepPaused(view, draft, ref, facts)
    case 'stopped':
      return keepStopped(view, draft, ref, facts)
    case 'deleted':
      return rest(draft, draft.record.status)
  }
}

/** A new spec: the new image is fetched while the old instance still runs; then one ends before the next begins. */
function replace(view: SandboxView, draft: Draft, ref: InstanceRef, facts: InstanceFacts): SandboxDecision {
  if (view.image === undefined) return need(view, 'image')
  const difference = 'the instance was made from an older spec'
  if (view.image === null && !view.canPull) {
    return rest(
      draft,
      {
        phase: 'Blocked',
        reason: 'ImageMissing',
        message: `The engine has no image "${draft.record.spec.image}" and cannot pull one; the present instance stays.`,
        difference,
      },
      view.now + 30_000,
    )
  }
  if (view.image === null) {
    const image = draft.record.spec.image
    return take(
      draft,
      {
        phase: facts.state === 'running' ? 'Running' : 'Starting',
        reason: 'Pulling',
        message: `The image ${image} is being pulled; the present instance stays until then.`,
        difference,
      },
      { kind: 'pull-image', image },
      reuse(view, draft, 'pull-image'),
    )
  }
  const status = {
    phase: 'Starting' as const,
    reason: 'Updating',
    message: `Instance ${ref.number} makes way for one of the new spec.`,
    difference,
  }
  if (facts.state === 'running') return stop(view, draft, ref, facts, 'update', status)
  return remove(view, draft, ref, facts, 'update', status)
}

/** Wanted and running. */
function keepRunning(
  view: SandboxView,
  draft: Draft,
  ref: InstanceRef,
  facts: InstanceFacts,
): SandboxDecision {
  const record = draft.record
  const at = { name: ref.name, uid: ref.uid, engineId: facts.id }
  if (facts.paused) {
    return take(
      draft,
      { phase: 'Resuming', reason: 'Resuming', message: 'It is being thawed.', difference: 'it is paused' },
      { kind: 'unpause-instance', ...at },
      reuse(view, draft, 'unpause-instance'),
    )
  }
  if (record.restartSeq > ref.restartSeq) {
    return stop(view, draft, ref, facts, 'restart', {
      phase: 'Starting',
      reason: 'Restarting',
      message: 'A restart was asked for.',
      difference: 'it has not restarted yet',
    })
  }
  if (record.status.phase !== 'Running') tell(draft, 'Normal', 'Running', `Instance ${ref.number} runs.`)
  const sameStart = ref.startedAt === facts.startedAt && ref.upSince !== null && ref.upSince <= view.now
  const upSince = sameStart ? (ref.upSince ?? view.now) : view.now
  const settledAt = upSince + RESTART_RESET_MS
  const lasted = view.now >= settledAt
  draft.record = {
    ...record,
    instance: { ...ref, engineId: facts.id, run: facts.run, startedAt: facts.startedAt, upSince },
    observedGeneration: record.generation,
    backoff: null,
    breaker: lasted ? null : record.breaker,
    restarts: lasted ? 0 : record.restarts,
  }
  return rest(
    draft,
    { phase: 'Running', reason: 'Running', message: `Instance ${ref.number} runs.` },
    (record.restarts > 0 || record.breaker !== null) && !lasted ? settledAt : null,
  )
}
