import type { Selectable } from 'kysely'
import type { QuarantineRow, Tombstone } from '../../model/records.ts'
import type { QuarantineTable, Session, TombstoneTable } from '../schema.ts'

function toTombstone(row: Selectable<TombstoneTable>): Tombstone {
  return { uid: row.uid, kind: row.kind as Tombstone['kind'], name: row.name, engine: row.engine, at: row.at }
}

export async function tombstone(s: Session, uid: string): Promise<Tombstone | null> {
  const [row] = await s.all(
    s.db.selectFrom('tombstones').selectAll().where('uid', '=', uid).orderBy('at', 'desc').limit(1),
  )
  return row === undefined ? null : toTombstone(row)
}

export async function tombstoneByName(
  s: Session,
  engine: string,
  kind: Tombstone['kind'],
  name: string,
): Promise<Tombstone | null> {
  const [row] = await s.all(
    s.db
      .selectFrom('tombstones')
      .selectAll()
      .where('engine', '=', engine)
      .where('kind', '=', kind)
      .where('name', '=', name)
      .orderBy('at', 'desc')
      .limit(1),
  )
  return row === undefined ? null : toTombstone(row)
}

/** One per uid and name, because a volume that was made anew leaves several names behind; the first time stays. */
export async function putTombstone(s: Session, t: Tombstone): Promise<void> {
  const { uid, kind, name, engine } = t
  await s.run(
    s.db
      .insertInto('tombstones')
      .values({ uid, kind, name, engine, at: Math.floor(t.at) })
      .onConflict((oc) => oc.doNothing()),
  )
}

function toQuarantine(row: Selectable<QuarantineTable>): QuarantineRow {
  return {
    engine: row.engine,
    kind: row.kind as QuarantineRow['kind'],
    name: row.name,
    engineId: row.engine_id,
    firstSeenAt: row.first_seen_at,
    lastSeenAt: row.last_seen_at,
    detail: row.detail,
  }
}

export async function quarantine(s: Session, engine?: string): Promise<readonly QuarantineRow[]> {
  let query = s.db.selectFrom('quarantine').selectAll().orderBy('first_seen_at').orderBy('name')
  if (engine !== undefined) query = query.where('engine', '=', engine)
  return (await s.all(query)).map(toQuarantine)
}

/** The same object seen again keeps the time it was first seen: its age is what a person judges by. */
export async function putQuarantine(s: Session, row: QuarantineRow): Promise<void> {
  const [known] = await s.all(
    s.db
      .selectFrom('quarantine')
      .select(['engine_id', 'first_seen_at'])
      .where('engine', '=', row.engine)
      .where('kind', '=', row.kind)
      .where('name', '=', row.name),
  )
  const first =
    known !== undefined && known.engine_id === row.engineId
      ? Math.min(known.first_seen_at, row.firstSeenAt)
      : row.firstSeenAt
  const seen = {
    engine_id: row.engineId,
    first_seen_at: Math.floor(first),
    last_seen_at: Math.floor(row.lastSeenAt),
    detail: row.detail,
  }
  await s.run(
    s.db
      .insertInto('quarantine')
      .values({ engine: row.engine, kind: row.kind, name: row.name, ...seen })
      .onConflict((oc) => oc.columns(['engine', 'kind', 'name']).doUpdateSet(seen)),
  )
}

export async function dropQuarantine(s: Session, engine: string, kind: string, name: string): Promise<void> {
  await s.run(
    s.db
      .deleteFrom('quarantine')
      .where('engine', '=', engine)
      .where('kind', '=', kind)
      .where('name', '=', name),
  )
}
