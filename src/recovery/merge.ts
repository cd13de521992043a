import type { Clock } from '../model/clock.ts'
import { fail } from '../model/errors.ts'
import type { Ids } from '../model/ids.ts'
import type { SandboxRecord, VolumeRecord } from '../model/records.ts'
import { openSqliteStore } from '../store/sqlite/index.ts'
import type { WriteTx } from '../store/store.ts'
import type { Rebuilt, RebuiltSandbox } from './rows.ts'

/** What a restored store did not know, and knows now. */
export interface Merged {
  /** Sandboxes that were made after the backup. */
  readonly added: readonly string[]
  /** Sandboxes that the store knew with an older instance. */
  readonly renewed: readonly string[]
  readonly volumes: readonly string[]
}

/**
 * Adds to a restored store what the engine has and it does not know. A row that knows the engine's instance stays as
 * it is: it tells more than labels do. Nothing is taken away, and the hold stays.
 */
export async function mergeRows(
  stateDir: string,
  found: Rebuilt & { readonly engine: string },
  o: { readonly clock: Clock; readonly ids: Ids },
): Promise<Merged> {
  const store = await openSqliteStore({ dir: stateDir, clock: o.clock, ids: o.ids })
  try {
    return await store.write(true, async (tx) => {
      // The engine was looked at without the lock: a server may have run, and a person confirmed, since then.
      if ((await tx.hold()) === null) throw fail('STATE_NOT_EMPTY', { dir: stateDir })
      const now = o.clock.now()
      const volumes: string[] = []
      const added: string[] = []
      const renewed: string[] = []
      const known = new Map<string, string>()
      for (const volume of found.volumes) {
        const { uid, isNew } = await mergeVolume(tx, volume)
        known.set(volume.uid, uid)
        if (isNew) volumes.push(volume.physicalName)
        await tx.dropQuarantine(found.engine, 'volume', volume.physicalName)
      }
      for (const sandbox of found.sandboxes) {
        const how = await mergeSandbox(tx, withUids(sandbox, known), now)
        if (how === 'added') added.push(sandbox.record.id)
        if (how === 'renewed') renewed.push(sandbox.record.id)
        if (how !== 'buried') await tx.dropQuarantine(found.engine, 'instance', sandbox.instance.name)
      }
      const message = `Taken over from the engine: ${added.length} sandboxes, ${renewed.length} newer instances, ${volumes.length} volumes.`
      await tx.appendEvent(
        { subject: 'server', id: 'store', type: 'Warning', reason: 'Rebuilt', message },
        now,
      )
      return { added, renewed, volumes }
    })
  } finally {
    await store.close()
  }
}

/** The uid under which the store knows the volume; one of others has the uid that the store gave it. */
async function mergeVolume(tx: WriteTx, volume: VolumeRecord): Promise<{ uid: string; isNew: boolean }> {
  const named = await tx.volumeByPhysicalName(volume.engine, volume.physicalName)
  if (named !== null && named.state !== 'removed') return { uid: named.uid, isNew: false }
  const row = volume.managed ? await tx.volume(volume.uid) : null
  if (row === null) {
    const taken = volume.kind === 'claim' && (await tx.volumeByClaim(volume.engine, volume.claim)) !== null
    await tx.insertVolume(taken ? { ...volume, claim: volume.physicalName } : volume)
    return { uid: volume.uid, isNew: true }
  }
  // Made anew since the backup: the engine has it under its next name, and what runs is on that.
  if (row.state === 'removing' || row.state === 'removed' || row.make >= volume.make)
    return { uid: row.uid, isNew: false }
  const { physicalName, make, engineCreatedAt } = volume
  const seed = row.seed === 'none' ? 'none' : 'seeded'
  await tx.updateVolume({ ...row, physicalName, make, engineCreatedAt, seed, state: 'ready', backoff: null })
  return { uid: row.uid, isNew: true }
}

function withUids({ record, ...rest }: RebuiltSandbox, known: ReadonlyMap<string, string>): RebuiltSandbox {
  const renamed = <T extends { readonly volume: string }>(m: T): T => ({
    ...m,
    volume: known.get(m.volume) ?? m.volume,
  })
  const mounts = record.spec.mounts.map((m) => (m.kind === 'volume' ? renamed(m) : m))
  return {
    ...rest,
    record: { ...record, spec: { ...record.spec, mounts }, imageMounts: record.imageMounts.map(renamed) },
  }
}

async function mergeSandbox(
  tx: WriteTx,
  { record: found, instance }: RebuiltSandbox,
  now: number,
): Promise<'added' | 'renewed' | 'known' | 'buried'> {
  if ((await tx.tombstone(instance.uid)) !== null) return 'buried'
  const row = await tx.sandbox(found.id)
  if (row === null) {
    if ((await tx.tombstone(found.id)) !== null) return 'buried'
    await tx.insertSandbox(found)
    return 'added'
  }
  if (row.instance?.uid === instance.uid) return 'known'
  if (row.deletedAt !== null || instance.number < (row.instance?.number ?? 0)) return 'buried'
  const next: SandboxRecord = {
    ...row,
    spec: found.spec,
    specHash: found.specHash,
    imageMounts: found.imageMounts,
    imageId: null,
    instance: { ...instance, generation: row.generation + 1, restartSeq: row.restartSeq },
    instanceSeq: Math.max(row.instanceSeq, instance.number),
    generation: row.generation + 1,
    observedGeneration: row.generation + 1,
    desired: found.desired,
    desiredReason: 'rebuilt',
    lastExit: null,
    restarts: 0,
    backoff: null,
    breaker: null,
    status: found.status,
    updatedAt: now,
  }
  await tx.updateSandbox(next)
  return 'renewed'
}
