import type { InstanceFacts } from '../model/facts.ts'
import { LABEL } from '../model/labels.ts'
import type { InstanceRef, JournalRow, Step } from '../model/records.ts'
import { isDrift } from '../model/spec.ts'
import { RESTART_BREAKER_AFTER, RESTART_RESET_MS, restartDelayMs, BREAKER_PROBE_MS } from './backoff.ts'
import { need, rest, take, tell, want, type Draft } from './draft.ts'
import { askedExit, classifyExit, restarts } from './exit.ts'
import { mountFault } from './mounts.ts'
import { lostVolume } from './create.ts'
import type { SandboxDecision, SandboxView } from './types.ts'

/** The journal row that a step of this kind would retry. */
function reuse(view: SandboxView, draft: Draft, kind: Step['kind']): number | null {
  const row: JournalRow | undefined = view.open.find(
    (r) => r.step.kind === kind && draft.settled.every((s) => s.id !== r.id),
  )
  return row?.id ?? null
}

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
  if (view.image === null && view.canPull) {
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

type Words = Parameters<typeof take>[1]

function stop(
  view: SandboxView,
  draft: Draft,
  ref: InstanceRef,
  facts: InstanceFacts,
  why: string,
  status: Words,
): SandboxDecision {
  const at = { name: ref.name, uid: ref.uid, engineId: facts.id }
  // Which start it ends is remembered first, so that the exit is known as asked for whenever it is seen.
  draft.record = { ...draft.record, instance: { ...ref, engineId: facts.id, startedAt: facts.startedAt } }
  if (facts.paused)
    return take(draft, status, { kind: 'unpause-instance', ...at }, reuse(view, draft, 'unpause-instance'))
  const step = { kind: 'stop-instance', ...at, graceMs: draft.record.stopGraceMs, why } as const
  return take(draft, status, step, reuse(view, draft, 'stop-instance'))
}

function remove(
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
  const settledAt = (facts.startedAt ?? view.now) + RESTART_RESET_MS
  const lasted = view.now >= settledAt
  draft.record = {
    ...record,
    instance: { ...ref, engineId: facts.id, run: facts.run, startedAt: facts.startedAt },
    observedGeneration: record.generation,
    backoff: null,
    breaker: lasted ? null : record.breaker,
    restarts: lasted ? 0 : record.restarts,
  }
  return rest(
    draft,
    { phase: 'Running', reason: 'Running', message: `Instance ${ref.number} runs.` },
    record.restarts > 0 && !lasted ? settledAt : null,
  )
}

/** Wanted running, and not running: never started, ended, or to be started again. */
function bringUp(view: SandboxView, draft: Draft, ref: InstanceRef, facts: InstanceFacts): SandboxDecision {
  if (facts.startedAt === null || draft.record.restartSeq > ref.restartSeq)
    return start(view, draft, ref, facts)
  const asked = view.open.some((r) => r.step.kind === 'stop-instance') || startAskedSince(draft, facts)
  const verdict = classifyExit(ref, facts, draft.record.lastExit, asked, view.exitCause, view.now)
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

/** A `start` that a user asked for after the end is a wish that this end cannot undo. */
function startAskedSince(draft: Draft, facts: InstanceFacts): boolean {
  return (
    draft.record.desiredReason === 'user' &&
    facts.finishedAt !== null &&
    draft.record.desiredAt > facts.finishedAt
  )
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
  const from = lastExit?.seenAt ?? view.now
  const at = breaker === null ? (n === 0 ? view.now : from + restartDelayMs(n)) : breaker.probeAt
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

function start(view: SandboxView, draft: Draft, ref: InstanceRef, facts: InstanceFacts): SandboxDecision {
  const first = facts.startedAt === null && ref.number === 1
  const seen = view.observed.known ? view.observed.value.volumes : new Map()
  const fault = mountFault(draft.record, view.volumes, seen, facts, view.installation)
  if (fault !== null) {
    if (fault.gone && fault.volume !== null) {
      draft.kicks.add(`volume/${fault.volume.uid}`)
      if (draft.record.status.phase !== 'Lost')
        tell(draft, 'Warning', 'VolumeLost', `It is not started: ${fault.text}.`)
      if (facts.startedAt !== null) return lostVolume(draft, fault.volume)
    }
    const status = {
      phase: 'Lost' as const,
      reason: 'WrongVolume',
      message: `It is not started: ${fault.text}. The instance is removed; data is untouched.`,
      difference: fault.text,
    }
    return remove(view, draft, ref, facts, 'wrong volume', status)
  }
  // The run is remembered before the start: an exit under another run is then never taken for the workload's.
  draft.record = {
    ...draft.record,
    instance: { ...ref, engineId: facts.id, run: facts.run, restartSeq: draft.record.restartSeq },
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

/** Wanted paused. */
function keepPaused(
  view: SandboxView,
  draft: Draft,
  ref: InstanceRef,
  facts: InstanceFacts,
): SandboxDecision {
  if (facts.state === 'stopped') {
    const ownEnd = facts.startedAt !== null && draft.record.lastExit?.startedAt === facts.startedAt
    want(draft, 'stopped', ownEnd ? 'exited' : 'engine-restart', view.now)
    tell(
      draft,
      'Warning',
      'PauseLost',
      'It was paused and its processes are gone: what was in memory is lost, its volumes are not. `resume` starts it.',
    )
    return keepStopped(view, draft, ref, facts)
  }
  if (!facts.paused) {
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
    observedGeneration: draft.record.generation,
    backoff: null,
  }
  return rest(draft, { phase: 'Paused', reason: 'Paused', message: 'It is frozen; `resume` lets it go on.' })
}

/** Wanted stopped. */
function keepStopped(
  view: SandboxView,
  draft: Draft,
  ref: InstanceRef,
  facts: InstanceFacts,
): SandboxDecision {
  const record = draft.record
  if (facts.state === 'running') {
    const wait = record.backoff
    if (wait !== null && wait.nextAt > view.now) {
      return rest(
        draft,
        {
          phase: 'Stopping',
          reason: 'StopFailed',
          message: `It could not be stopped: ${wait.error}. It is tried again.`,
          difference: 'it still runs',
          next: 'stop-instance',
          nextAt: wait.nextAt,
        },
        wait.nextAt,
      )
    }
    return stop(view, draft, ref, facts, record.desiredReason, {
      phase: 'Stopping',
      reason: 'Stopping',
      message: 'It is being stopped.',
      difference: 'it still runs',
    })
  }
  const dealtWith =
    record.lastExit !== null &&
    record.lastExit.instance === ref.number &&
    record.lastExit.startedAt === (facts.startedAt ?? 0)
  if (facts.startedAt !== null && (!dealtWith || record.lastExit?.class === 'provisional')) {
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

function stoppedReason(draft: Draft): string {
  const words: Partial<Record<typeof draft.record.desiredReason, string>> = {
    exited: 'Exited',
    oom: 'OutOfMemory',
    external: 'StoppedByOther',
    idle: 'Idle',
    'engine-restart': 'EngineRestarted',
  }
  return words[draft.record.desiredReason] ?? 'Stopped'
}

function stoppedMessage(draft: Draft): string {
  const code = draft.record.lastExit?.code
  const status = code === null || code === undefined ? '' : ` with status ${code}`
  const words: Partial<Record<typeof draft.record.desiredReason, string>> = {
    exited: `Its process ended${status}. \`start\` runs it again.`,
    oom: 'It ran out of memory. Its volumes are untouched; `update --memory` gives it more, `start` runs it again.',
    external: `Somebody else stopped it${status}. \`start\` runs it again.`,
    'engine-restart':
      'It was paused when its engine restarted: what was in memory is lost, its volumes are not. `resume` starts it.',
  }
  return words[draft.record.desiredReason] ?? 'It is stopped. `start` runs it again.'
}
