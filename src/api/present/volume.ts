import type { VolumeRecord } from '../../model/records.ts'
import type { VolumeWire } from '../schemas/volume.ts'
import { iso, isoOrNull } from './time.ts'

export function volumeBody(row: VolumeRecord, mountedBy: readonly string[]): VolumeWire {
  return {
    uid: row.uid,
    claimName: row.claim,
    kind: row.kind,
    physicalName: row.physicalName,
    state: row.state,
    retention: row.retention,
    shared: row.shared,
    managed: row.managed,
    owner: row.owner,
    mountedBy: [...mountedBy],
    sizeBytes: row.sizeBytes,
    notEnforced: [...row.notEnforced],
    seed: row.seed,
    message: row.message,
    createdAt: iso(row.createdAt),
    removedAt: isoOrNull(row.removedAt),
  }
}
