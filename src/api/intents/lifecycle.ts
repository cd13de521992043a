import { possibleActions, type Action } from '../../model/actions.ts'
import { fail } from '../../model/errors.ts'
import { WEDGED_CODE } from '../../plan/ends.ts'
import type { Desired, EventDraft, Phase, SandboxRecord } from '../../model/records.ts'

/** A changed record with the event that tells of it. */
export interface Change {
  readonly record: SandboxRecord
  readonly event: EventDraft
}

/** What an intent makes of a record; null when all it asks for holds already. Pure. */
export type Decide = (record: SandboxRecord, now: number) => Change | null

/** Throws `SANDBOX::INVALID_STATE`, naming the state and what is possible. */
export function requireAction(record: SandboxRecord, action: Action): void {
  const possible = possibleActions(record)
  if (possible.includes(action)) return
  throw fail('SANDBOX::INVALID_STATE', { id: record.id, state: record.status.phase, action, possible })
}

function event(record: SandboxRecord, reason: string, message: string): EventDraft {
  return { subject: 'sandbox', id: record.id, type: 'Normal', reason, message }
}

/** Somebody asked by hand: what went wrong before counts no more (DESIGN §4.4). */
function cleared(record: SandboxRecord): SandboxRecord {
  return { ...record, backoff: null, breaker: null, restarts: 0 }
}

/**
 * The status between the acknowledgement and the first pass, so that a reader right after it does not take the old
 * state for the outcome.
 */
function accepted(record: SandboxRecord, phase: Phase, message: string, now: number): SandboxRecord {
  const difference = 'it was asked for just now'
  return {
    ...record,
    updatedAt: now,
    status: { phase, reason: 'Accepted', message, difference, next: 'observe', nextAt: now },
  }
}

function want(record: SandboxRecord, desired: Desired, now: number): SandboxRecord {
  return { ...record, desired, desiredReason: 'user', desiredAt: now, generation: record.generation + 1 }
}

export const stop: Decide = (record, now) => {
  requireAction(record, 'stop')
  if (record.desired === 'stopped') return null
  const next = accepted(want(cleared(record), 'stopped', now), 'Stopping', 'A stop was asked for.', now)
  return { record: next, event: event(record, 'StopRequested', 'A stop was asked for.') }
}

/** Starts a stopped one, resumes a paused one, replaces a lost one, and retries a failed or blocked one at once. */
function bringUp(action: 'start' | 'resume'): Decide {
  return (record, now) => {
    requireAction(record, action)
    const { phase } = record.status
    const fromPause = record.desired === 'paused'
    const message = fromPause ? 'A resume was asked for.' : 'A start was asked for.'
    const up = record.desired === 'running' && (phase === 'Running' || phase === 'Resuming')
    const changes = record.desired !== 'running' || phase === 'Lost'
    const base: SandboxRecord = {
      ...cleared(record),
      desired: 'running',
      desiredReason: 'user',
      desiredAt: now,
      generation: record.generation + (changes ? 1 : 0),
      startAsked: true,
      // An instance that is gone cannot be started: asking for it is the leave to replace it, whether or not the loss was seen yet.
      recoverSeq: record.recoverSeq + 1,
    }
    const asked = event(record, fromPause ? 'ResumeRequested' : 'StartRequested', message)
    // The phase can be older than the end of what ran, so the wish is recorded also when it seems to hold already.
    if (up) return { record: { ...base, updatedAt: now }, event: asked }
    const next = accepted(base, upPhase(record), message, now)
    return { record: next, event: asked }
  }
}

function upPhase(record: SandboxRecord): Phase {
  if (record.desired === 'paused') return 'Resuming'
  return record.status.phase === 'Pending' ? 'Pending' : 'Starting'
}

export const start: Decide = bringUp('start')
export const resume: Decide = bringUp('resume')

export const restart: Decide = (record, now) => {
  requireAction(record, 'restart')
  const base: SandboxRecord = {
    ...want(cleared(record), 'running', now),
    restartSeq: record.restartSeq + 1,
    startAsked: true,
    recoverSeq: record.recoverSeq + 1,
  }
  const next = accepted(base, 'Starting', 'A restart was asked for.', now)
  return { record: next, event: event(record, 'RestartRequested', 'A restart was asked for.') }
}

export const pause: Decide = (record, now) => {
  requireAction(record, 'pause')
  if (record.desired === 'paused') return null
  const next = accepted(want(cleared(record), 'paused', now), 'Pausing', 'A pause was asked for.', now)
  return { record: next, event: event(record, 'PauseRequested', 'A pause was asked for.') }
}

/** An instance that the engine cannot start any more is replaced by leave only: what is not in volumes goes with it. */
function leaveToReplace({ backoff }: SandboxRecord, now: number): SandboxRecord['backoff'] {
  return backoff?.code === WEDGED_CODE ? { ...backoff, attempts: 0, nextAt: now } : null
}

export const recover: Decide = (record, now) => {
  requireAction(record, 'recover')
  const base: SandboxRecord = {
    ...want(cleared(record), 'running', now),
    startAsked: true,
    recoverSeq: record.recoverSeq + 1,
    mayReplaceVolumes: true,
    backoff: leaveToReplace(record, now),
  }
  const runs = record.status.phase === 'Running'
  const message = 'A recovery was asked for: an instance that is gone may be replaced, on the same volumes.'
  const next = runs ? { ...base, updatedAt: now } : accepted(base, 'Starting', message, now)
  return { record: next, event: event(record, 'RecoverRequested', message) }
}

/** Asking again while it is under way is no error: the answer to the first may have been lost. */
export const remove: Decide = (record, now) => {
  if (record.desired === 'deleted') {
    if (record.desiredReason !== 'create-failed' || record.deletedAt !== null) return null
    // It was refused and is only kept to be read: whoever deletes it has read it.
    const read: SandboxRecord = { ...record, desiredReason: 'user', desiredAt: now, updatedAt: now }
    return { record: read, event: event(record, 'DeleteRequested', 'A delete was asked for.') }
  }
  const next = accepted(want(cleared(record), 'deleted', now), 'Stopping', 'A delete was asked for.', now)
  return { record: next, event: event(record, 'DeleteRequested', 'A delete was asked for.') }
}

/** Throws 400 when the time is not later than now and than what is held, 409 when it never expires. */
export function renew(expiresAt: number): Decide {
  return (record, now) => {
    requireAction(record, 'renew')
    if (record.expiresAt === null) throw fail('SANDBOX::NEVER_EXPIRES', { id: record.id })
    const problem =
      expiresAt <= now
        ? 'must be in the future'
        : expiresAt <= record.expiresAt
          ? `must be later than ${new Date(record.expiresAt).toISOString()}, which holds now`
          : null
    if (problem !== null) throw fail('INVALID_REQUEST', { issues: [{ path: 'expiresAt', message: problem }] })
    const text = new Date(expiresAt).toISOString()
    return {
      record: { ...record, expiresAt, updatedAt: now },
      event: event(record, 'Renewed', `It now expires at ${text}.`),
    }
  }
}

export function setMetadata(metadata: Readonly<Record<string, string>>): Decide {
  return (record, now) => {
    if (record.desired === 'deleted') requireAction(record, 'update')
    return {
      record: { ...record, metadata, updatedAt: now },
      event: event(record, 'MetadataChanged', 'Its metadata was changed.'),
    }
  }
}
