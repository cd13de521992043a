import { volumeKey } from '../model/keys.ts'
import type { EngineErrorKind, InstanceFacts } from '../model/facts.ts'
import type { InstanceRef } from '../model/records.ts'
import { isAbout, remove, reuse } from './acts.ts'
import { BREAKER_PROBE_MS, dueAt, nextBackoff, RESTART_BREAKER_AFTER, restartDelayMs } from './backoff.ts'
import { lostVolume } from './create.ts'
import { need, rest, take, tell, want, type Draft } from './draft.ts'
import { askedExit, classifyExit, isDealtWith, restarts } from './exit.ts'
import { keepStopped } from './held.ts'
import { mountFault } from './mounts.ts'
import type { SandboxDecision, SandboxView } from './types.ts'

/** Code of the backoff of an instance that the engine cannot start any more; without attempts it is the leave to replace it. */
export const WEDGED_CODE: EngineErrorKind = 'wedged'

/** Wanted running, and not running: never started, ended, or to be started again. */
export function bringUp(
  view: SandboxView,
  draft: Draft,
  ref: InstanceRef,
  facts: InstanceFacts,
): SandboxDecision {
  const { backoff } = draft.record
  if (backoff?.code === WEDGED_CODE && backoff.attempts === 0) {
    return remove(view, draft, ref, facts, 'recover', {
      phase: 'Starting',
      reason: 'Recovering',
      message: `Instance ${ref.number}, which the engine cannot start any more, makes way for the next one on the same volumes.`,
      difference: 'the instance cannot be started',
    })
  }
  if (facts.startedAt === null) return start(view, draft, ref, facts)
  if (draft.record.restartSeq > ref.restartSeq) {
    // The end was part of the restart: should its start fail, it must not read as the workload's own.
    if (!isDealtWith(ref, facts, draft.record.lastExit)) {
      draft.record = { ...draft.record, lastExit: askedExit(ref, facts, view.now) }
    }
    return start(view, draft, ref, facts)
  }
  const asked =
    view.open.some((r) => r.step.kind === 'stop-instance' && isAbout(r.step, ref)) ||
    startAskedSince(draft, facts, view.now)
  const { lastExit, stopDoubtUntil } = draft.record
  const inDoubt = stopDoubtUntil !== null && stopDoubtUntil > view.now
  const verdict = classifyExit(ref, facts, lastExit, asked, view.exitCause, view.now, inDoubt)
  switch (verdict.kind) {
    case 'need-cause':
      return need(view, 'exit-cause')
    case 'handled':
      return verdict.exit.class === 'asked'
        ? start(view, draft, ref, facts)
        : restart(view, draft, ref, facts)
    case 'provisional':
      draft.record = { ...draft.record, lastExit: verdict.exit }
      return rest(
        draft,
        {
          phase: 'Stopped',
          reason: 'ExitSeen',
          message: `Its process ended (status ${facts.exitCode ?? 'unknown'}); whether by itself or with the engine is being made sure of.`,
          difference: 'it is not running',
          next: 'observe',
          nextAt: verdict.certainAt,
        },
        verdict.certainAt,
      )
    case 'new':
      draft.record = { ...draft.record, lastExit: verdict.exit }
      return afterExit(view, draft, ref, facts)
  }
}

/**
 * A `start` that a user asked for after the end is a wish that this end cannot undo. An end that lies ahead was told
 * under another clock, so which came first is not known, and the wish counts.
 */
function startAskedSince(draft: Draft, { finishedAt }: InstanceFacts, now: number): boolean {
  if (!draft.record.startAsked || finishedAt === null) return false
  return draft.record.desiredAt >= finishedAt || finishedAt > now
}

/** A new, certain exit: its class and the restart policy decide what follows. */
function afterExit(view: SandboxView, draft: Draft, ref: InstanceRef, facts: InstanceFacts): SandboxDecision {
  const exit = draft.record.lastExit
  if (exit === null || exit.class === 'asked') return start(view, draft, ref, facts)
  if (exit.class === 'engine') {
    tell(
      draft,
      'Warning',
      'EndedWithEngine',
      `Instance ${ref.number} ended with its engine or host, so it is started again.`,
    )
    return start(view, draft, ref, facts)
  }
  const how =
    exit.class === 'oom'
      ? 'ran out of memory'
      : exit.class === 'external'
        ? 'was stopped by somebody else'
        : 'ended by itself'
  const what = `Instance ${ref.number} ${how} (status ${exit.code ?? 'unknown'})`
  if (!restarts(draft.record.restartPolicy, exit, draft.record.restarts)) {
    tell(draft, exit.code === 0 ? 'Normal' : 'Warning', 'Exited', `${what}.`)
    const reason = exit.class === 'oom' ? 'oom' : exit.class === 'external' ? 'external' : 'exited'
    want(draft, 'stopped', reason, view.now)
    return keepStopped(view, draft, ref, facts)
  }
  const n = draft.record.restarts + 1
  draft.record = { ...draft.record, restarts: n }
  if (n >= RESTART_BREAKER_AFTER) {
    draft.record = {
      ...draft.record,
      breaker: {
        since: view.now,
        reason: `${what}, ${n} times in a row`,
        probeAt: view.now + BREAKER_PROBE_MS,
      },
    }
    tell(
      draft,
      'Warning',
      'CrashLoop',
      `${what}, ${n} times in a row: it is left alone for a while. \`start\` tries at once.`,
    )
  } else {
    tell(draft, 'Warning', 'Restarting', `${what}; the restart policy starts it again.`)
  }
  return restart(view, draft, ref, facts)
}

/** Started again after an exit of its own: with a growing wait, measured from when the exit was seen. */
function restart(view: SandboxView, draft: Draft, ref: InstanceRef, facts: InstanceFacts): SandboxDecision {
  const { lastExit, restarts: n, breaker } = draft.record
  const wait = n === 0 ? 0 : restartDelayMs(n)
  const delayed = dueAt((lastExit?.seenAt ?? view.now) + wait, wait, view.now)
  const at = Math.max(delayed, breaker === null ? 0 : dueAt(breaker.probeAt, BREAKER_PROBE_MS, view.now))
  if (at > view.now) {
    return rest(
      draft,
      {
        phase: breaker === null ? 'Starting' : 'Failed',
        reason: breaker === null ? 'RestartWait' : 'CrashLoop',
        message: breaker === null ? 'It ended, and is started again by its restart policy.' : breaker.reason,
        difference: 'it is not running',
        next: 'start-instance',
        nextAt: at,
      },
      at,
    )
  }
  return start(view, draft, ref, facts)
}

/** Why an instance was removed that was made on another volume than journaled; its backoff stays. */
export const WRONG_VOLUME = 'wrong volume'
export const WRONG_VOLUME_CODE = 'wrong-volume'

function start(view: SandboxView, draft: Draft, ref: InstanceRef, facts: InstanceFacts): SandboxDecision {
  const first = facts.startedAt === null && ref.number === 1
  const seen = view.observed.known ? view.observed.value.volumes : new Map()
  const fault = mountFault(draft.record, view.volumes, seen, facts, view.installation)
  if (fault !== null) {
    if (fault.gone && fault.volume !== null) {
      draft.kicks.add(volumeKey(fault.volume.uid))
      if (draft.record.status.phase !== 'Lost')
        tell(draft, 'Warning', 'VolumeLost', `It is not started: ${fault.text}.`)
      if (facts.startedAt !== null) return lostVolume(draft, fault.volume)
    }
    // Whatever makes it come out wrong each time must not turn into a loop of creates and removals.
    const failure = { error: fault.text, code: WRONG_VOLUME_CODE }
    draft.record = { ...draft.record, backoff: nextBackoff(draft.record.backoff, failure, view.now, 0.5) }
    const status = {
      phase: 'Lost' as const,
      reason: 'WrongVolume',
      message: `It is not started: ${fault.text}. The instance is removed; data is untouched.`,
      difference: fault.text,
    }
    return remove(view, draft, ref, facts, WRONG_VOLUME, status)
  }
  // The run is remembered before the start: an exit under another run is then never taken for the workload's.
  draft.record = {
    ...draft.record,
    instance: { ...ref, engineId: facts.id, run: facts.run, restartSeq: draft.record.restartSeq },
    startAsked: false,
  }
  return take(
    draft,
    {
      phase: first ? 'Pending' : 'Starting',
      reason: 'Starting',
      message: `Instance ${ref.number} is being started.`,
      difference: 'it is not running',
    },
    { kind: 'start-instance', name: ref.name, uid: ref.uid, engineId: facts.id },
    reuse(view, draft, 'start-instance'),
  )
}
