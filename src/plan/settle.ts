import type { InstanceFacts } from '../model/facts.ts'
import { isExactly } from '../model/labels.ts'
import type { JournalRow } from '../model/records.ts'
import type { SettledRow } from './types.ts'

/** What an observation says of one open instance step. */
export type Settlement =
  | { readonly kind: 'done' }
  /** Its effect is not there; a retry with the same names may be sent at any time. */
  | { readonly kind: 'not-yet' }

/**
 * Compares an open step with the facts. Only what is seen settles a row; a row that is not settled is either retried
 * with its names or, when no longer wanted and past its limit, abandoned.
 */
export function settleInstanceStep(
  row: JournalRow,
  facts: InstanceFacts | null,
  installation: string,
): Settlement {
  const step = row.step
  const notYet: Settlement = { kind: 'not-yet' }
  const done: Settlement = { kind: 'done' }
  switch (step.kind) {
    case 'create-instance':
      return facts !== null && isExactly(facts, { installation, name: step.name, uid: step.uid })
        ? done
        : notYet
    case 'remove-instance':
      return facts === null || facts.id !== step.engineId ? done : notYet
    case 'start-instance':
      return facts !== null && facts.state === 'running' && facts.id === step.engineId ? done : notYet
    case 'stop-instance':
      return facts === null || facts.state === 'stopped' ? done : notYet
    case 'pause-instance':
      return facts === null || facts.state === 'stopped' || facts.paused ? done : notYet
    case 'unpause-instance':
      return facts === null || facts.state === 'stopped' || !facts.paused ? done : notYet
    case 'pull-image':
    case 'create-volume':
    case 'remove-volume':
      return notYet
  }
}

/** While a create is open and within its limit, "not found" means unknown, not absent (DESIGN §4.3). */
export function openCreateUntil(
  open: readonly JournalRow[],
  now: number,
  doubtUntil: number | null | undefined = null,
): number | null {
  let until: number | null = doubtUntil != null && doubtUntil > now ? doubtUntil : null
  for (const row of open) {
    if (row.state !== 'open') continue
    if (row.step.kind !== 'create-instance' && row.step.kind !== 'create-volume') continue
    if (row.deadlineAt > now) until = Math.max(until ?? 0, row.deadlineAt)
  }
  return until
}

export function settledAs(row: JournalRow, state: SettledRow['state'], outcome: string): SettledRow {
  return { id: row.id, state, outcome }
}
