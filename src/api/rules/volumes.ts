import type { FieldIssue } from '../../model/errors.ts'
import type { PvcBody, VolumeBody } from '../schemas/create.ts'
import { mountPath, normalise } from './paths.ts'
import { parseBytes } from './quantity.ts'

/** What one claim of a request asks for; equal for all its mounts. */
export interface ClaimRequest {
  readonly claim: string
  readonly createIfNotExists: boolean
  readonly deleteWithOwner: boolean
  readonly shared: boolean
  readonly sizeBytes: number | null
  /** As it was written, for what is reported as not enforced. */
  readonly sizeText: string | null
  readonly storageClass: string | null
}

interface MountBase {
  readonly name: string
  readonly path: string
  readonly readOnly: boolean
}

export type MountRequest =
  | (MountBase & { readonly kind: 'claim'; readonly request: ClaimRequest })
  | (MountBase & { readonly kind: 'host'; readonly hostPath: string; readonly field: string })

/** The flags that must agree where one claim is named twice (the table in the volumes' wire rules). */
function flagsOf(pvc: PvcBody, shared: boolean | undefined): string {
  return JSON.stringify([
    pvc.createIfNotExists,
    pvc.deleteOnSandboxTermination,
    pvc.storageClass ?? null,
    pvc.storage ?? null,
    (pvc.accessModes ?? ['ReadWriteOnce']).toSorted(),
    shared ?? null,
  ])
}

function claimOf(volume: VolumeBody, pvc: PvcBody, at: string, issues: FieldIssue[]): ClaimRequest {
  const sizeText = pvc.storage ?? null
  const sizeBytes = sizeText === null ? null : parseBytes(sizeText)
  if (sizeText !== null && sizeBytes === null) {
    issues.push({ path: `${at}.pvc.storage`, message: 'must be a size as "1Gi"' })
  }
  return {
    claim: pvc.claimName,
    createIfNotExists: pvc.createIfNotExists,
    deleteWithOwner: pvc.deleteOnSandboxTermination,
    shared: volume.shared ?? (pvc.accessModes ?? []).includes('ReadWriteMany'),
    sizeBytes,
    sizeText,
    storageClass: pvc.storageClass ?? null,
  }
}

/** The mounts of a request; problems go to `issues`, with both entries named where two disagree. */
export function checkVolumes(volumes: readonly VolumeBody[], issues: FieldIssue[]): MountRequest[] {
  const mounts: MountRequest[] = []
  const paths = new Map<string, number>()
  const names = new Map<string, number>()
  const claims = new Map<string, { index: number; flags: string }>()
  for (const [i, volume] of volumes.entries()) {
    const at = `volumes[${i}]`
    const where = mountPath(volume.mountPath)
    if ('problem' in where) issues.push({ path: `${at}.mountPath`, message: where.problem })
    const path = 'path' in where ? where.path : volume.mountPath
    const samePath = paths.get(path)
    if (samePath !== undefined) {
      issues.push({ path: `${at}.mountPath`, message: `the same path as volumes[${samePath}]` })
    }
    paths.set(path, i)
    const sameName = names.get(volume.name)
    if (sameName !== undefined)
      issues.push({ path: `${at}.name`, message: `the same name as volumes[${sameName}]` })
    names.set(volume.name, i)
    const pvc = volume.pvc ?? null
    const host = volume.host ?? null
    if ((pvc === null) === (host === null)) {
      issues.push({ path: at, message: 'exactly one of pvc and host is needed' })
      continue
    }
    const base = { name: volume.name, path, readOnly: volume.readOnly }
    if (host !== null) {
      mounts.push({ ...base, kind: 'host', hostPath: hostPathText(host.path), field: `${at}.host.path` })
      continue
    }
    if (pvc === null) continue
    const flags = flagsOf(pvc, volume.shared)
    const twin = claims.get(pvc.claimName)
    if (twin !== undefined && twin.flags !== flags) {
      issues.push({
        path: `${at}.pvc`,
        message: `claim "${pvc.claimName}" is also named by volumes[${twin.index}] with other flags`,
      })
    }
    claims.set(pvc.claimName, { index: i, flags })
    mounts.push({ ...base, kind: 'claim', request: claimOf(volume, pvc, at, issues) })
  }
  return mounts
}

/** Normalised only where that cannot hide a `..`, which the prefix check refuses. */
function hostPathText(path: string): string {
  return path.startsWith('/') && !path.split('/').includes('..') ? normalise(path) : path
}
