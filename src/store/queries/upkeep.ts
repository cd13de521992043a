import { decodeHold, HOLD_META, type Hold } from '../../model/hold.ts'
import { parseDoc, sandboxSchema, stepSchema, volumeSchema } from '../rows.ts'
import type { Session } from '../schema.ts'
import type { ApiKeyRow, IdempotencyRow } from '../store.ts'

export async function idempotency(s: Session, key: string): Promise<IdempotencyRow | null> {
  const [row] = await s.all(s.db.selectFrom('idempotency').selectAll().where('key', '=', key))
  if (row === undefined) return null
  return { key: row.key, requestHash: row.request_hash, status: row.status, body: row.body, at: row.at }
}

export async function putIdempotency(s: Session, row: IdempotencyRow): Promise<void> {
  const values = { request_hash: row.requestHash, status: row.status, body: row.body, at: Math.floor(row.at) }
  await s.run(
    s.db
      .insertInto('idempotency')
      .values({ key: row.key, ...values })
      .onConflict((oc) => oc.column('key').doUpdateSet(values)),
  )
}

export async function apiKeys(s: Session): Promise<readonly ApiKeyRow[]> {
  const rows = await s.all(s.db.selectFrom('api_keys').selectAll().orderBy('created_at').orderBy('id'))
  return rows.map((row) => ({ id: row.id, name: row.name, hash: row.hash, createdAt: row.created_at }))
}

export async function removeApiKey(s: Session, id: string): Promise<void> {
  await s.run(s.db.deleteFrom('api_keys').where('id', '=', id))
}

export async function putApiKey(s: Session, row: ApiKeyRow): Promise<void> {
  const values = { name: row.name, hash: row.hash, created_at: Math.floor(row.createdAt) }
  await s.run(
    s.db
      .insertInto('api_keys')
      .values({ id: row.id, ...values })
      .onConflict((oc) => oc.column('id').doUpdateSet(values)),
  )
}

export async function meta(s: Session, key: string): Promise<string | null> {
  const [row] = await s.all(s.db.selectFrom('meta').select('value').where('key', '=', key))
  return row?.value ?? null
}

export async function hold(s: Session): Promise<Hold | null> {
  return decodeHold(await meta(s, HOLD_META))
}

export async function setMeta(s: Session, key: string, value: string): Promise<void> {
  await s.run(
    s.db
      .insertInto('meta')
      .values({ key, value })
      .onConflict((oc) => oc.column('key').doUpdateSet({ value })),
  )
}

/** Reads every document: for `doctor` and `audit`, not for every request. */
export async function corruptRows(
  s: Session,
): Promise<readonly { table: string; id: string; error: string }[]> {
  const out: { table: string; id: string; error: string }[] = []
  for (const row of await s.all(
    s.db.selectFrom('sandboxes').select(['id', 'version', 'doc']).orderBy('id'),
  )) {
    const parsed = parseDoc(sandboxSchema, row.doc, { id: row.id, version: row.version })
    if (!parsed.ok) out.push({ table: 'sandboxes', id: row.id, error: parsed.error })
  }
  for (const row of await s.all(
    s.db.selectFrom('volumes').select(['uid', 'version', 'doc']).orderBy('uid'),
  )) {
    const parsed = parseDoc(volumeSchema, row.doc, { uid: row.uid, version: row.version })
    if (!parsed.ok) out.push({ table: 'volumes', id: row.uid, error: parsed.error })
  }
  for (const row of await s.all(s.db.selectFrom('journal').select(['id', 'step']).orderBy('id'))) {
    const parsed = parseDoc(stepSchema, row.step)
    if (!parsed.ok) out.push({ table: 'journal', id: String(row.id), error: parsed.error })
  }
  return out
}

/** Rows of each kind that one call removes at most: a long-neglected table must not hold the only writer for seconds. */
const PRUNE_LIMIT = 2000

export async function prune(
  s: Session,
  before: { events: number; journal: number; idempotency: number; sandboxes: number },
): Promise<number> {
  const { db } = s
  let removed = 0
  const events = db.selectFrom('events').select('seq').where('at', '<', before.events).limit(PRUNE_LIMIT)
  removed += await s.run(db.deleteFrom('events').where('seq', 'in', events))
  const closed = db
    .selectFrom('journal')
    .select('id')
    .where('state', '!=', 'open')
    .where('closed_at', '<', before.journal)
    .limit(PRUNE_LIMIT)
  removed += await s.run(db.deleteFrom('journal').where('id', 'in', closed))
  const answers = db
    .selectFrom('idempotency')
    .select('key')
    .where('at', '<', before.idempotency)
    .limit(PRUNE_LIMIT)
  removed += await s.run(db.deleteFrom('idempotency').where('key', 'in', answers))
  return removed + (await pruneSandboxes(s, before.sandboxes)) + (await pruneVolumes(s, before.sandboxes))
}

/** A finished sandbox leaves its tombstone, so that late remains of it are still known as ours. */
async function pruneSandboxes(s: Session, before: number): Promise<number> {
  const { db } = s
  const gone = await s.all(
    db
      .selectFrom('sandboxes')
      .select(['id', 'engine', 'deleted_at'])
      .where('deleted_at', '<', before)
      .limit(PRUNE_LIMIT),
  )
  for (const row of gone) {
    const { id, engine } = row
    await s.run(
      db
        .insertInto('tombstones')
        .values({ uid: id, kind: 'sandbox', name: id, engine, at: row.deleted_at ?? before })
        .onConflict((oc) => oc.doNothing()),
    )
    await s.run(db.deleteFrom('mounts').where('sandbox', '=', id))
    await s.run(db.deleteFrom('metadata').where('sandbox', '=', id))
    await s.run(db.deleteFrom('sandboxes').where('id', '=', id))
  }
  return gone.length
}

/** Rows of removed volumes; a managed one only once its tombstone exists, and an unmanaged one leaves none: it never was ours. */
async function pruneVolumes(s: Session, before: number): Promise<number> {
  const { db } = s
  const buried = db.selectFrom('tombstones').select('uid').where('kind', '=', 'volume')
  const gone = db
    .selectFrom('volumes')
    .select('uid')
    .where('state', '=', 'removed')
    .where('removed_at', '<', before)
    .where((eb) => eb.or([eb('managed', '=', 0), eb('uid', 'in', buried)]))
    .limit(PRUNE_LIMIT)
  return s.run(db.deleteFrom('volumes').where('uid', 'in', gone))
}
