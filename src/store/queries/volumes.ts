import { fail } from '../../model/errors.ts'
import type { VolumeRecord } from '../../model/records.ts'
import { encodeDoc, parseDoc, unreadable, volumeSchema } from '../rows.ts'
import type { Session, VolumeTable } from '../schema.ts'
import { UniqueViolation } from '../schema.ts'
import type { Page } from '../store.ts'

type Row = Pick<VolumeTable, 'uid' | 'version' | 'doc'>
const COLUMNS = ['uid', 'version', 'doc'] as const

function readable(rows: readonly Row[]): VolumeRecord[] {
  const out: VolumeRecord[] = []
  for (const row of rows) {
    const parsed = parseDoc(volumeSchema, row.doc, { uid: row.uid, version: row.version })
    if (parsed.ok) out.push(parsed.value)
  }
  return out
}

function decode(row: Row): VolumeRecord {
  const parsed = parseDoc(volumeSchema, row.doc, { uid: row.uid, version: row.version })
  if (!parsed.ok) throw unreadable('volumes', row.uid, parsed.error)
  return parsed.value
}

export async function volume(s: Session, uid: string): Promise<VolumeRecord | null> {
  const [row] = await s.all(s.db.selectFrom('volumes').select(COLUMNS).where('uid', '=', uid))
  return row === undefined ? null : decode(row)
}

export async function volumeByClaim(s: Session, engine: string, claim: string): Promise<VolumeRecord | null> {
  const [row] = await s.all(
    s.db
      .selectFrom('volumes')
      .select(COLUMNS)
      .where('engine', '=', engine)
      .where('claim', '=', claim)
      .where('kind', '=', 'claim')
      .where('state', '!=', 'removed'),
  )
  return row === undefined ? null : decode(row)
}

/** The live row of this name; without one, the newest that was removed. */
export async function volumeByPhysicalName(
  s: Session,
  engine: string,
  name: string,
): Promise<VolumeRecord | null> {
  const rows = await s.all(
    s.db
      .selectFrom('volumes')
      .select([...COLUMNS, 'state'])
      .where('engine', '=', engine)
      .where('physical_name', '=', name)
      .orderBy('created_at', 'desc')
      .orderBy('uid'),
  )
  const row = rows.find((r) => r.state !== 'removed') ?? rows[0]
  return row === undefined ? null : decode(row)
}

export async function volumesOwnedBy(s: Session, sandbox: string): Promise<readonly VolumeRecord[]> {
  return readable(
    await s.all(
      s.db
        .selectFrom('volumes')
        .select(COLUMNS)
        .where('owner', '=', sandbox)
        .orderBy('created_at')
        .orderBy('uid'),
    ),
  )
}

export async function volumes(
  s: Session,
  filter: { includeRemoved?: boolean; engine?: string },
  page?: { offset: number; limit: number },
): Promise<Page<VolumeRecord>> {
  let base = s.db.selectFrom('volumes')
  if (filter.includeRemoved !== true) base = base.where('state', '!=', 'removed')
  if (filter.engine !== undefined) base = base.where('engine', '=', filter.engine)
  const query = base.select(COLUMNS).orderBy('created_at', 'desc').orderBy('uid')
  if (page === undefined) {
    const rows = await s.all(query)
    return { items: readable(rows), total: rows.length }
  }
  const counted = await s.all(base.select((eb) => eb.fn.countAll<number>().as('n')))
  const rows = await s.all(query.limit(page.limit).offset(page.offset))
  return { items: readable(rows), total: counted[0]?.n ?? 0 }
}

function columns(record: VolumeRecord, version: number): VolumeTable {
  const doc = encodeDoc(volumeSchema, 'volumes', record.uid, { ...record, version })
  return {
    uid: record.uid,
    engine: record.engine,
    kind: record.kind,
    claim: record.claim,
    physical_name: record.physicalName,
    owner: record.owner,
    managed: record.managed ? 1 : 0,
    state: record.state,
    created_at: Math.floor(record.createdAt),
    removed_at: record.removedAt === null ? null : Math.ceil(record.removedAt),
    version,
    doc,
  }
}

/** A claim, and the physical name behind it, belong to one live volume of an engine. */
function claimTaken(record: VolumeRecord, error: unknown): unknown {
  if (!(error instanceof UniqueViolation) || error.columns === 'volumes.uid') return error
  return fail('VOLUME::CLAIM_TAKEN', { claim: record.claim })
}

export async function insertVolume(s: Session, record: VolumeRecord): Promise<void> {
  try {
    await s.run(s.db.insertInto('volumes').values(columns(record, record.version)))
  } catch (error) {
    throw claimTaken(record, error)
  }
}

export async function updateVolume(s: Session, record: VolumeRecord): Promise<boolean> {
  const { uid, ...set } = columns(record, record.version + 1)
  try {
    const query = s.db
      .updateTable('volumes')
      .set(set)
      .where('uid', '=', uid)
      .where('version', '=', record.version)
    return (await s.run(query)) > 0
  } catch (error) {
    throw claimTaken(record, error)
  }
}
