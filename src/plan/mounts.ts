import type { InstanceFacts, VolumeFacts } from '../model/facts.ts'
import { isExactly } from '../model/labels.ts'
import type { SandboxRecord, VolumeMount, VolumeRecord } from '../model/records.ts'

export const SANDBOX_DIR = '/sandbox'

/** All volume mounts of a sandbox: the user's and those for paths that the image declares. */
export function volumeMounts(record: SandboxRecord): readonly VolumeMount[] {
  return [...record.spec.mounts.filter((m) => m.kind === 'volume'), ...record.imageMounts]
}

/** True when the engine's object is the volume of this row: by uid label, or by creation time for somebody else's. */
export function isExpectedVolume(row: VolumeRecord, facts: VolumeFacts, installation: string): boolean {
  if (!row.managed) return row.engineCreatedAt !== null && facts.createdAt === row.engineCreatedAt
  return isExactly(facts, { installation, name: row.physicalName, uid: row.uid })
}

/**
 * Engines create missing volumes silently, so between create and start of an instance every mount is checked to be
 * the expected volume (DESIGN §5). Returns what is wrong in words, or null.
 */
export function mountFault(
  record: SandboxRecord,
  volumes: readonly VolumeRecord[],
  seen: ReadonlyMap<string, VolumeFacts | null>,
  instance: InstanceFacts,
  installation: string,
): { readonly text: string; readonly volume: VolumeRecord | null; readonly gone: boolean } | null {
  for (const mount of volumeMounts(record)) {
    const row = volumes.find((v) => v.uid === mount.volume)
    if (row === undefined) return { text: `the volume ${mount.claim} has no row`, volume: null, gone: true }
    const facts = seen.get(row.physicalName)
    if (facts === undefined || facts === null) {
      return {
        text: `the volume ${row.claim} (${row.physicalName}) is gone from the engine`,
        volume: row,
        gone: true,
      }
    }
    if (!isExpectedVolume(row, facts, installation)) {
      return {
        text: `the engine has another volume under the name ${row.physicalName}, not the one that held the data`,
        volume: row,
        gone: true,
      }
    }
    const mounted = instance.mounts.find((m) => normalPath(m.path) === normalPath(mount.path))
    if (mounted === undefined || mounted.volume !== row.physicalName) {
      return {
        text: `the instance does not mount ${row.physicalName} at ${mount.path}`,
        volume: row,
        gone: false,
      }
    }
  }
  return null
}

/** Without doubled or trailing slashes: images and engines write the same path in different ways. */
export function normalPath(path: string): string {
  const short = path.replaceAll(/\/{2,}/g, '/').replace(/\/+$/, '')
  return short === '' ? '/' : short
}

/** True when `path` is `mount` or lies beneath it. */
export function covers(mount: string, path: string): boolean {
  const m = mount.replace(/\/+$/, '')
  return path === m || path.startsWith(`${m}/`) || m === ''
}
