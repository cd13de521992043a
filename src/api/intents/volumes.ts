import type { Engine } from '../../engines/engine.ts'
import { fail } from '../../model/errors.ts'
import type { VolumeRecord } from '../../model/records.ts'
import { volumeKey } from '../../reconcile/controller.ts'
import type { ReadTx } from '../../store/store.ts'
import type { ApiDeps } from '../deps.ts'
import { volumeBody } from '../present/volume.ts'
import { parseBytes } from '../rules/quantity.ts'
import type { VolumeCreateBody } from '../schemas/create.ts'
import { lookUpClaims, newVolume, notEnforced } from './claims.ts'
import { refuseWhileHeld } from './hold.ts'
import { CasLost, commitIntent, replay, type Committed, type Idempotency } from './commit.ts'

type Deps = Pick<ApiDeps, 'store' | 'controller' | 'clock' | 'ids'>

/** The row that a uid or a claim names; claims only find what is not removed. */
export async function findVolume(tx: ReadTx, engine: string, ref: string): Promise<VolumeRecord> {
  const row = (await tx.volume(ref)) ?? (await tx.volumeByClaim(engine, ref))
  if (row === null) throw fail('VOLUME::NOT_FOUND', { id: ref })
  return row
}

export async function createVolume(
  deps: Deps,
  engine: Engine,
  body: VolumeCreateBody,
  idem: Idempotency | null,
  signal: AbortSignal,
): Promise<Committed> {
  const sizeText = body.storage ?? null
  const sizeBytes = sizeText === null ? null : parseBytes(sizeText)
  if (sizeText !== null && sizeBytes === null) {
    throw fail('INVALID_REQUEST', { issues: [{ path: 'storage', message: 'must be a size as "1Gi"' }] })
  }
  const earlier = idem === null ? null : await deps.store.read((tx) => replay(tx, idem, deps.clock.now()))
  if (earlier !== null) return earlier
  // Somebody else's volume of this name would be what the claim means, so it cannot be made beside it.
  const found = await lookUpClaims(deps.store, engine, [body.claimName], signal)
  if ((found.get(body.claimName) ?? null) !== null)
    throw fail('VOLUME::CLAIM_TAKEN', { claim: body.claimName })
  return commitIntent(deps, idem, async (tx, now) => {
    const claim = body.claimName
    if ((await tx.volumeByClaim(engine.id, claim)) !== null) throw fail('VOLUME::CLAIM_TAKEN', { claim })
    const row = newVolume(
      {
        uid: deps.ids.next(),
        claim,
        kind: 'claim',
        owner: null,
        retention: body.retention,
        shared: body.shared,
        sizeBytes,
        notEnforced: notEnforced(engine, { sizeBytes, sizeText, storageClass: null }),
        seed: 'none',
      },
      engine.id,
      now,
    )
    await tx.insertVolume(row)
    await tx.appendEvent(
      {
        subject: 'volume',
        id: row.uid,
        type: 'Normal',
        reason: 'Created',
        message: `Accepted: claim ${claim}.`,
      },
      now,
    )
    return { status: 201, body: volumeBody(row, []), kicks: [volumeKey(row.uid)] }
  })
}

/** Records the consent to remove a volume; refused, not recorded, while anything mounts it. */
export async function purgeVolume(deps: Deps, engine: string, ref: string): Promise<Committed> {
  return commitIntent(deps, null, async (tx, now) => {
    const row = await findVolume(tx, engine, ref)
    const answer = { status: 202, kicks: [volumeKey(row.uid)] }
    if (row.state === 'removed') throw fail('VOLUME::NOT_FOUND', { id: ref })
    if (row.state === 'removing') return { ...answer, body: { uid: row.uid, state: row.state } }
    await refuseWhileHeld(tx, `The volume ${row.claim}`)
    const holders = (await tx.holdersOf(row.uid)).map((h) => h.id)
    if (holders.length > 0) throw fail('VOLUME::IN_USE', { claim: row.claim, holders })
    const next: VolumeRecord = { ...row, purge: { by: 'user', at: now }, state: 'removing', backoff: null }
    if (!(await tx.updateVolume(next))) throw new CasLost()
    await tx.appendEvent(
      {
        subject: 'volume',
        id: row.uid,
        type: 'Normal',
        reason: 'PurgeRequested',
        message: 'Its removal was asked for.',
      },
      now,
    )
    return { ...answer, body: { uid: row.uid, state: next.state } }
  })
}
