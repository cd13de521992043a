import { sql } from 'kysely'
import type { EventDraft, EventRecord } from '../../model/records.ts'
import type { Session } from '../schema.ts'
import type { EventFilter } from '../store.ts'

export async function events(s: Session, filter: EventFilter): Promise<readonly EventRecord[]> {
  let query = s.db
    .selectFrom('events')
    .selectAll()
    .orderBy('seq', filter.reverse === true ? 'desc' : 'asc')
    .limit(filter.limit)
  if (filter.afterSeq !== undefined) query = query.where('seq', '>', filter.afterSeq)
  if (filter.subject !== undefined) query = query.where('subject', '=', filter.subject)
  if (filter.id !== undefined) query = query.where('id', '=', filter.id)
  const rows = await s.all(query)
  return rows.map((row) => ({
    seq: row.seq,
    at: row.at,
    subject: row.subject as EventRecord['subject'],
    id: row.id,
    type: row.type as EventRecord['type'],
    reason: row.reason,
    message: row.message,
  }))
}

/** The last number given out, also when that event was pruned; 0 before the first. */
export async function lastEventSeq(s: Session): Promise<number> {
  const query = sql<{ seq: number }>`select seq from sqlite_sequence where name = 'events'`
  const [row] = await s.all({ compile: () => query.compile(s.db) })
  return row?.seq ?? 0
}

export async function appendEvent(s: Session, draft: EventDraft, at: number): Promise<EventRecord> {
  const time = Math.floor(at)
  const { subject, id, type, reason, message } = draft
  const rows = await s.all(
    s.db.insertInto('events').values({ subject, id, type, reason, message, at: time }).returning('seq'),
  )
  return { subject, id, type, reason, message, at: time, seq: rows[0]?.seq ?? 0 }
}
