import type { EngineErrorKind } from '../model/facts.ts'
import type { Backoff, SandboxRecord, Step, VolumeRecord } from '../model/records.ts'
import { nextBackoff, nextBreaker } from './backoff.ts'

export interface StepFailure {
  readonly kind: EngineErrorKind
  readonly effect: 'none' | 'unknown'
  readonly message: string
}

/** An engine that does not answer is not the sandbox's fault: the longest wait is this, ms. */
const UNREACHABLE_MAX_MS = 5_000

function backoffFor(previous: Backoff | null, failure: StepFailure, now: number, random: number): Backoff {
  const next = nextBackoff(previous, { error: failure.message, code: failure.kind }, now, random)
  if (failure.kind !== 'unreachable') return next
  return { ...next, nextAt: Math.min(next.nextAt, now + UNREACHABLE_MAX_MS) }
}

/** True for failures that say nothing about the sandbox: we were told to stop, or may no longer act. */
function isOurs(kind: EngineErrorKind): boolean {
  return kind === 'fenced' || kind === 'aborted'
}

/** The record after a failed step: backoff and breaker, or for a spec that the engine refuses for good, the end of the create. */
export function afterSandboxFailure(
  record: SandboxRecord,
  step: Step,
  failure: StepFailure,
  now: number,
  random: number,
): SandboxRecord {
  if (isOurs(failure.kind)) return record
  const backoff = backoffFor(record.backoff, failure, now, random)
  const refused =
    failure.kind === 'invalid' &&
    step.kind === 'create-instance' &&
    record.desired === 'running' &&
    record.generation === 1 &&
    record.instanceSeq === 1
  if (refused) {
    return {
      ...record,
      backoff,
      desired: 'deleted',
      desiredReason: 'create-failed',
      desiredAt: now,
      generation: record.generation + 1,
    }
  }
  const breaker =
    failure.kind === 'unreachable' || failure.kind === 'timeout'
      ? record.breaker
      : nextBreaker(record.breaker, backoff.attempts, failure.message, now)
  return { ...record, backoff, breaker }
}

/** The volume's row after a failed step. */
export function afterVolumeFailure(
  record: VolumeRecord,
  failure: StepFailure,
  now: number,
  random: number,
): VolumeRecord {
  if (isOurs(failure.kind)) return record
  return { ...record, backoff: backoffFor(record.backoff, failure, now, random) }
}

/**
 * Whether a create that failed can have begun to seed a volume. Refusals that come before anything is made leave it
 * untouched; after all others it is made anew.
 */
export function mayHaveSeeded(failure: StepFailure): boolean {
  if (failure.effect === 'unknown') return true
  return failure.kind === 'failed' || failure.kind === 'disk-full' || failure.kind === 'timeout'
}
