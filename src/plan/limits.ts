import type { JournalRow, SandboxRecord, Step } from '../model/records.ts'
import { LATE_STOP_MS } from './acts.ts'
import { dueAt } from './backoff.ts'

const LONGEST_CREATE_MS = 20_000
/** A stop's call, beside the grace that the instance is given, ms. */
const STOP_MS = 20_000

/**
 * How long a step's call may take, ms. Until then a lost call can still land, so "not found" means unknown; it is
 * therefore short for creates, whose copies of image content set the lower bound.
 */
export function stepLimitMs(step: Step): number {
  switch (step.kind) {
    case 'pull-image':
      return 1_800_000
    case 'create-volume':
    case 'create-instance':
      return LONGEST_CREATE_MS
    case 'start-instance':
      return 30_000
    case 'stop-instance':
      return step.graceMs + STOP_MS
    case 'pause-instance':
    case 'unpause-instance':
      return 15_000
    case 'remove-volume':
    case 'remove-instance':
      return 60_000
  }
}

/**
 * Rows whose limits are told by the clock as it is now. A limit that lies further ahead than any of its kind was
 * written before the wall clock stepped back: waiting for it could take for ever, and nothing can land any more.
 */
export function rowsByClock(rows: readonly JournalRow[], now: number): readonly JournalRow[] {
  return rows.map((row) => {
    const deadlineAt = dueAt(row.deadlineAt, stepLimitMs(row.step), now)
    return deadlineAt === row.deadlineAt ? row : { ...row, deadlineAt }
  })
}

/** The same for the doubts that a sandbox remembers of steps whose rows are closed. */
export function doubtsByClock<
  T extends Pick<SandboxRecord, 'createDoubtUntil' | 'stopDoubtUntil' | 'stopGraceMs'>,
>(record: T, now: number): T {
  const { createDoubtUntil: create, stopDoubtUntil: stop, stopGraceMs } = record
  const isOver = (until: number | null, longestMs: number): boolean =>
    until !== null && until > now && dueAt(until, longestMs, now) <= now
  const createOver = isOver(create, LONGEST_CREATE_MS)
  const stopOver = isOver(stop, stopGraceMs + LATE_STOP_MS + STOP_MS)
  if (!createOver && !stopOver) return record
  return {
    ...record,
    createDoubtUntil: createOver ? null : create,
    stopDoubtUntil: stopOver ? null : stop,
  }
}
