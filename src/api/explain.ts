import type { EngineHealth } from '../engines/host.ts'
import type { InstanceFacts, Observed } from '../model/facts.ts'
import { holdCause, type Hold } from '../model/hold.ts'
import type { JournalRow, SandboxRecord, VolumeRecord } from '../model/records.ts'
import { iso, isoOrNull } from './present/time.ts'
import type { ExplainWire } from './schemas/operations.ts'

/** All that an explanation is made of. */
export interface ExplainView {
  readonly record: SandboxRecord
  readonly volumes: readonly VolumeRecord[]
  readonly open: readonly JournalRow[]
  readonly health: EngineHealth
  /** Null is confirmed absent. */
  readonly observed: Observed<InstanceFacts | null>
  readonly hold: Hold | null
}

function observedPart(observed: ExplainView['observed']): ExplainWire['observed'] {
  if (!observed.known) return { known: false, error: observed.error, since: iso(observed.since) }
  const facts = observed.value
  return {
    known: true,
    at: iso(observed.at),
    instance:
      facts === null
        ? null
        : {
            state: facts.state,
            paused: facts.paused,
            name: facts.name,
            engineId: facts.id,
            startedAt: isoOrNull(facts.startedAt),
            exitCode: facts.state === 'stopped' && facts.startedAt !== null ? facts.exitCode : null,
          },
  }
}

/** The commands that lead on from here, the likeliest first. */
function suggestions(view: ExplainView): string[] {
  const { record, health } = view
  const ref = record.name ?? record.id
  const out: string[] = []
  if (!health.ok) out.push('holdfast doctor')
  if (record.status.reason === 'Held') out.push('holdfast rebuild --confirm')
  if (record.desired === 'deleted') return [...out, `holdfast events ${ref}`]
  switch (record.status.phase) {
    case 'Lost':
      out.push(`holdfast recover ${ref}`, `holdfast rm ${ref}`)
      break
    case 'Failed':
    case 'Blocked':
      out.push(`holdfast logs ${ref}`, `holdfast start ${ref}`, `holdfast update ${ref} --image IMAGE`)
      break
    case 'Stopped':
      out.push(`holdfast start ${ref}`, `holdfast logs ${ref}`)
      break
    case 'Paused':
      out.push(`holdfast resume ${ref}`)
      break
    case 'Unknown':
    case 'Pending':
    case 'Starting':
    case 'Pausing':
    case 'Resuming':
    case 'Stopping':
      out.push(`holdfast events ${ref} --follow`)
      break
    case 'Running':
    case 'Terminated':
  }
  return out
}

/** Wanted, observed, difference, next step, when, last error, breaker (DESIGN §1.7). Pure. */
export function explain(view: ExplainView): ExplainWire {
  const { record, health } = view
  const { backoff, breaker, lastExit, status } = record
  return {
    id: record.id,
    wanted: {
      state: record.desired,
      reason: record.desiredReason,
      at: iso(record.desiredAt),
      generation: record.generation,
    },
    observed: observedPart(view.observed),
    difference: status.difference,
    next: status.next,
    nextAt: isoOrNull(status.nextAt),
    lastError:
      backoff === null
        ? null
        : { message: backoff.error, code: backoff.code, at: iso(backoff.at), attempts: backoff.attempts },
    breaker:
      breaker === null
        ? null
        : { since: iso(breaker.since), reason: breaker.reason, probeAt: iso(breaker.probeAt) },
    openSteps: view.open.map((row) => ({
      kind: row.step.kind,
      since: iso(row.createdAt),
      attempts: row.attempts,
      deadline: iso(row.deadlineAt),
    })),
    survives: view.volumes.map((v) => ({ claimName: v.claim, uid: v.uid, state: v.state })),
    engine: { id: record.engine, ok: health.ok, error: health.error },
    lastExit:
      lastExit === null
        ? null
        : { code: lastExit.code, class: lastExit.class, finishedAt: isoOrNull(lastExit.finishedAt) },
    held: view.hold === null ? null : holdCause(view.hold),
    suggestions: suggestions(view),
  }
}
