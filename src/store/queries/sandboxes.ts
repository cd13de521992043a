import type { Expression, ExpressionBuilder, ExpressionWrapper, SqlBool } from 'kysely'
import { fail } from '../../model/errors.ts'
import type { SandboxRecord } from '../../model/records.ts'
import { encodeDoc, parseDoc, sandboxSchema, unreadable } from '../rows.ts'
import type { SandboxTable, Schema, Session } from '../schema.ts'
import { UniqueViolation } from '../schema.ts'
import type { Page, SandboxFilter } from '../store.ts'

type Row = Pick<SandboxTable, 'id' | 'version' | 'doc'>
const COLUMNS = ['id', 'version', 'doc'] as const

/** For lists that only show: one bad row hides only itself. */
function readable(rows: readonly Row[]): SandboxRecord[] {
  const out: SandboxRecord[] = []
  for (const row of rows) {
    const parsed = parseDoc(sandboxSchema, row.doc, { id: row.id, version: row.version })
    if (parsed.ok) out.push(parsed.value)
  }
  return out
}

/** For look-ups that decide something: a row that cannot be read is not a row that is absent. */
function decode(row: Row): SandboxRecord {
  const parsed = parseDoc(sandboxSchema, row.doc, { id: row.id, version: row.version })
  if (!parsed.ok) throw unreadable('sandboxes', row.id, parsed.error)
  return parsed.value
}

export async function sandbox(s: Session, id: string): Promise<SandboxRecord | null> {
  const [row] = await s.all(s.db.selectFrom('sandboxes').select(COLUMNS).where('id', '=', id))
  return row === undefined ? null : decode(row)
}

export async function sandboxByName(s: Session, name: string): Promise<SandboxRecord | null> {
  const [row] = await s.all(
    s.db.selectFrom('sandboxes').select(COLUMNS).where('name', '=', name).where('deleted_at', 'is', null),
  )
  return row === undefined ? null : decode(row)
}

/** Throws for an unreadable match: leaving it out could turn an ambiguous prefix into the wrong sandbox. */
export async function sandboxesByPrefix(
  s: Session,
  prefix: string,
  limit: number,
): Promise<readonly SandboxRecord[]> {
  const rows = await s.all(
    s.db
      .selectFrom('sandboxes')
      .select(COLUMNS)
      .where('id', '>=', prefix)
      .where('id', '<', `${prefix}\u{10ffff}`)
      .where('deleted_at', 'is', null)
      .orderBy('id')
      .limit(limit),
  )
  return rows.map(decode)
}

type Where = (eb: ExpressionBuilder<Schema, 'sandboxes'>) => ExpressionWrapper<Schema, 'sandboxes', SqlBool>

function matches(filter: SandboxFilter): Where {
  return (eb) => {
    const all: Expression<SqlBool>[] = []
    if (filter.includeDeleted !== true) all.push(eb('deleted_at', 'is', null))
    if (filter.engine !== undefined) all.push(eb('engine', '=', filter.engine))
    if (filter.phases !== undefined && filter.phases.length > 0) {
      const phases = filter.phases.map((p) => p.toLowerCase())
      all.push(eb(eb.fn<string>('lower', ['phase']), 'in', phases))
    }
    for (const [key, value] of Object.entries(filter.metadata ?? {})) {
      const pair = eb
        .selectFrom('metadata')
        .select('metadata.sandbox')
        .where('metadata.key', '=', key)
        .where('metadata.value', '=', value)
      all.push(eb('sandboxes.id', 'in', pair))
    }
    return eb.and(all)
  }
}

export async function sandboxes(
  s: Session,
  filter: SandboxFilter,
  page?: { offset: number; limit: number },
): Promise<Page<SandboxRecord>> {
  const where = matches(filter)
  let query = s.db
    .selectFrom('sandboxes')
    .select(COLUMNS)
    .where(where)
    .orderBy('created_at', 'desc')
    .orderBy('id')
  if (page === undefined) {
    const rows = await s.all(query)
    return { items: readable(rows), total: rows.length }
  }
  query = query.limit(page.limit).offset(page.offset)
  const counted = await s.all(
    s.db
      .selectFrom('sandboxes')
      .select((eb) => eb.fn.countAll<number>().as('n'))
      .where(where),
  )
  return { items: readable(await s.all(query)), total: counted[0]?.n ?? 0 }
}

export async function sandboxesExpiredAt(s: Session, now: number): Promise<readonly SandboxRecord[]> {
  const rows = await s.all(
    s.db
      .selectFrom('sandboxes')
      .select(COLUMNS)
      .where('expires_at', '<=', now)
      .where('deleted_at', 'is', null)
      .where('desired', '!=', 'deleted')
      .orderBy('expires_at'),
  )
  return readable(rows)
}

function holderRows(s: Session, volume: string): Promise<readonly Row[]> {
  return s.all(
    s.db
      .selectFrom('mounts')
      .innerJoin('sandboxes', 'sandboxes.id', 'mounts.sandbox')
      .select(['sandboxes.id', 'sandboxes.version', 'sandboxes.doc'])
      .where('mounts.volume', '=', volume)
      .where('sandboxes.deleted_at', 'is', null)
      .orderBy('sandboxes.created_at')
      .orderBy('sandboxes.id'),
  )
}

/** Throws when a holder cannot be read: a volume is never thought free because its holder's row is damaged. */
export async function holdersOf(s: Session, volume: string): Promise<readonly SandboxRecord[]> {
  return (await holderRows(s, volume)).map(decode).filter((r) => !isRefused(r))
}

export async function holderIds(s: Session, volume: string): Promise<readonly string[]> {
  const rows = await holderRows(s, volume)
  const refused = new Set(
    readable(rows)
      .filter(isRefused)
      .map((r) => r.id),
  )
  return rows.map((r) => r.id).filter((id) => !refused.has(id))
}

/** Refused for good and without an instance: only kept to be read, so it holds nothing. */
function isRefused(r: SandboxRecord): boolean {
  return r.desired === 'deleted' && r.desiredReason === 'create-failed' && r.instance === null
}

/** Times are whole in their columns, rounded to the side that does nothing too early; the document has them exactly. */
function columns(record: SandboxRecord, version: number): SandboxTable {
  const doc = encodeDoc(sandboxSchema, 'sandboxes', record.id, { ...record, version })
  return {
    id: record.id,
    name: record.name,
    engine: record.engine,
    phase: record.status.phase,
    desired: record.desired,
    created_at: Math.floor(record.createdAt),
    expires_at: record.expiresAt === null ? null : Math.ceil(record.expiresAt),
    deleted_at: record.deletedAt === null ? null : Math.ceil(record.deletedAt),
    version,
    doc,
  }
}

function volumesNamedBy(record: SandboxRecord): readonly string[] {
  const uids = new Set<string>()
  for (const mount of record.spec.mounts) if (mount.kind === 'volume') uids.add(mount.volume)
  for (const mount of record.imageMounts) uids.add(mount.volume)
  return [...uids]
}

async function writeIndexes(s: Session, record: SandboxRecord): Promise<void> {
  const mounts = volumesNamedBy(record).map((volume) => ({ sandbox: record.id, volume }))
  if (mounts.length > 0) await s.run(s.db.insertInto('mounts').values(mounts))
  const pairs = Object.entries(record.metadata).map(([key, value]) => ({ sandbox: record.id, key, value }))
  if (pairs.length > 0) await s.run(s.db.insertInto('metadata').values(pairs))
}

/** Turns the index's refusal of a name into the error that names the holder. */
async function nameTaken(s: Session, record: SandboxRecord, error: unknown): Promise<unknown> {
  if (!(error instanceof UniqueViolation) || error.columns !== 'sandboxes.name' || record.name === null)
    return error
  const [holder] = await s.all(
    s.db.selectFrom('sandboxes').select('id').where('name', '=', record.name).where('deleted_at', 'is', null),
  )
  return fail('SANDBOX::NAME_TAKEN', { name: record.name, id: holder?.id ?? 'unknown' })
}

export async function insertSandbox(s: Session, record: SandboxRecord): Promise<void> {
  try {
    await s.run(s.db.insertInto('sandboxes').values(columns(record, record.version)))
  } catch (error) {
    throw await nameTaken(s, record, error)
  }
  await writeIndexes(s, record)
}

export async function updateSandbox(s: Session, record: SandboxRecord): Promise<boolean> {
  const { id, ...set } = columns(record, record.version + 1)
  let changed: number
  try {
    changed = await s.run(
      s.db.updateTable('sandboxes').set(set).where('id', '=', id).where('version', '=', record.version),
    )
  } catch (error) {
    throw await nameTaken(s, record, error)
  }
  if (changed === 0) return false
  await s.run(s.db.deleteFrom('mounts').where('sandbox', '=', id))
  await s.run(s.db.deleteFrom('metadata').where('sandbox', '=', id))
  await writeIndexes(s, record)
  return true
}
