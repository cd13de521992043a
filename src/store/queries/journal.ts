import type { Selectable } from 'kysely'
import { fail } from '../../model/errors.ts'
import type { JournalRow, JournalState, Step } from '../../model/records.ts'
import { encodeDoc, parseDoc, stepSchema, unreadable } from '../rows.ts'
import type { JournalTable, Session } from '../schema.ts'

type Row = Selectable<JournalTable>

function fromRow(row: Row, step: Step): JournalRow {
  return {
    id: row.id,
    key: row.key,
    engine: row.engine,
    step,
    generation: row.generation,
    epoch: row.epoch,
    state: row.state as JournalState,
    attempts: row.attempts,
    createdAt: row.created_at,
    deadlineAt: row.deadline_at,
    closedAt: row.closed_at,
    outcome: row.outcome,
  }
}

function decode(row: Row): JournalRow {
  const parsed = parseDoc(stepSchema, row.step)
  if (!parsed.ok) throw unreadable('journal', String(row.id), parsed.error)
  return fromRow(row, parsed.value)
}

function readable(rows: readonly Row[]): JournalRow[] {
  const out: JournalRow[] = []
  for (const row of rows) {
    const parsed = parseDoc(stepSchema, row.step)
    if (parsed.ok) out.push(fromRow(row, parsed.value))
  }
  return out
}

/**
 * Of one key: throws for an unreadable row, because a pass that cannot see an open step could take it twice. Of all
 * keys: leaves it out, so that it stops its own key only.
 */
export async function openSteps(s: Session, key?: string): Promise<readonly JournalRow[]> {
  const base = s.db.selectFrom('journal').selectAll().where('state', '=', 'open').orderBy('id')
  if (key === undefined) return readable(await s.all(base))
  return (await s.all(base.where('key', '=', key))).map(decode)
}

export async function journal(s: Session, key: string, limit: number): Promise<readonly JournalRow[]> {
  return readable(
    await s.all(
      s.db.selectFrom('journal').selectAll().where('key', '=', key).orderBy('id', 'desc').limit(limit),
    ),
  )
}

export async function openStep(
  s: Session,
  row: { key: string; engine: string; step: Step; generation: number; at: number; deadlineAt: number },
): Promise<JournalRow> {
  const at = Math.floor(row.at)
  const rows = await s.all(
    s.db
      .insertInto('journal')
      .values({
        key: row.key,
        engine: row.engine,
        step: encodeDoc(stepSchema, 'journal', row.key, row.step),
        generation: row.generation,
        epoch: s.epoch,
        state: 'open',
        attempts: 1,
        created_at: at,
        tried_at: at,
        deadline_at: Math.ceil(row.deadlineAt),
        closed_at: null,
        outcome: null,
      })
      .returningAll(),
  )
  return decode(only(rows, 'a new step'))
}

export async function retryStep(s: Session, id: number, at: number, deadlineAt: number): Promise<JournalRow> {
  const rows = await s.all(
    s.db
      .updateTable('journal')
      .set((eb) => ({
        attempts: eb('attempts', '+', 1),
        epoch: s.epoch,
        tried_at: Math.floor(at),
        deadline_at: Math.ceil(deadlineAt),
      }))
      .where('id', '=', id)
      .where('state', '=', 'open')
      .returningAll(),
  )
  return decode(only(rows, `step ${id}`))
}

export async function closeStep(
  s: Session,
  id: number,
  state: Exclude<JournalState, 'open'>,
  at: number,
  outcome: string,
): Promise<void> {
  const changed = await s.run(
    s.db
      .updateTable('journal')
      .set({ state, closed_at: Math.ceil(at), outcome })
      .where('id', '=', id)
      .where('state', '=', 'open'),
  )
  if (changed === 0) throw notOpen(`step ${id}`)
}

function only(rows: readonly Row[], what: string): Row {
  const [row] = rows
  if (row === undefined) throw notOpen(what)
  return row
}

/** An outcome is recorded once: a second one would hide the first. */
function notOpen(what: string): Error {
  return fail('STORE_FAILED', { detail: `${what} is not open in the journal` })
}
