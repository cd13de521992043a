import { HoldfastError } from '../../model/errors.ts'
import type { Mount, SandboxRecord, VolumeRecord } from '../../model/records.ts'
import type { ReadTx } from '../../store/store.ts'
import { limitsText } from '../rules/quantity.ts'
import { restartPolicyText } from '../rules/restart.ts'
import type { CreatedWire, MountWire, SandboxWire, StatusWire } from '../schemas/sandbox.ts'
import { iso, isoOrNull } from './time.ts'

type Volumes = ReadonlyMap<string, VolumeRecord>

function statusOf(record: SandboxRecord): StatusWire {
  const { phase, reason, message } = record.status
  return { state: phase, reason, message, lastTransitionAt: iso(record.updatedAt) }
}

function mountOf(mount: Mount, volumes: Volumes, kind: 'claim' | 'image'): MountWire {
  if (mount.kind === 'host') {
    const { name, path, readOnly } = mount
    return { name, claimName: null, uid: null, mountPath: path, readOnly, kind: 'host' }
  }
  return {
    name: mount.name,
    claimName: mount.claim,
    uid: mount.volume,
    mountPath: mount.path,
    readOnly: mount.readOnly,
    kind: volumes.get(mount.volume)?.kind ?? kind,
  }
}

export function sandboxBody(record: SandboxRecord, volumes: Volumes): SandboxWire {
  const { spec, instance, lastExit } = record
  return {
    id: record.id,
    name: record.name,
    status: statusOf(record),
    image: { uri: spec.image },
    entrypoint: [...spec.entrypoint],
    env: { ...spec.env },
    resourceLimits: limitsText(spec.limits),
    metadata: { ...record.metadata },
    createdAt: iso(record.createdAt),
    expiresAt: isoOrNull(record.expiresAt),
    restartPolicy: restartPolicyText(record.restartPolicy),
    desired: { state: record.desired, reason: record.desiredReason, at: iso(record.desiredAt) },
    generation: record.generation,
    observedGeneration: record.observedGeneration,
    engine: record.engine,
    instance:
      instance === null
        ? null
        : {
            number: instance.number,
            name: instance.name,
            engineId: instance.engineId,
            startedAt: isoOrNull(instance.startedAt),
          },
    lastExit:
      lastExit === null
        ? null
        : { code: lastExit.code, class: lastExit.class, finishedAt: isoOrNull(lastExit.finishedAt) },
    restarts: record.restarts,
    volumes: [
      ...spec.mounts.map((m) => mountOf(m, volumes, 'claim')),
      ...record.imageMounts.map((m) => mountOf(m, volumes, 'image')),
    ],
    workingDir: spec.workingDir,
    user: spec.user,
    stopGraceSeconds: record.stopGraceMs / 1000,
    deletedAt: isoOrNull(record.deletedAt),
  }
}

export function createdBody(record: SandboxRecord, volumes: Volumes): CreatedWire {
  return {
    id: record.id,
    name: record.name,
    status: statusOf(record),
    ...(Object.keys(record.metadata).length === 0 ? {} : { metadata: { ...record.metadata } }),
    expiresAt: isoOrNull(record.expiresAt),
    createdAt: iso(record.createdAt),
    entrypoint: [...record.spec.entrypoint],
    volumes: record.spec.mounts.flatMap((m) =>
      m.kind === 'host'
        ? []
        : [
            {
              claimName: m.claim,
              uid: m.volume,
              mountPath: m.path,
              retention: volumes.get(m.volume)?.retention ?? 'retain',
            },
          ],
    ),
  }
}

/** For what is only shown: a damaged row hides itself, and not whoever mounts it. */
async function shown(look: Promise<VolumeRecord | null>): Promise<VolumeRecord | null> {
  try {
    return await look
  } catch (error) {
    if (error instanceof HoldfastError && error.code === 'ROW_UNREADABLE') return null
    throw error
  }
}

/** The rows of all volumes that these sandboxes mount, as far as they can be read. */
export async function volumesOf(tx: ReadTx, records: readonly SandboxRecord[]): Promise<Volumes> {
  const out = new Map<string, VolumeRecord>()
  for (const record of records) {
    for (const mount of [...record.spec.mounts, ...record.imageMounts]) {
      if (mount.kind !== 'volume' || out.has(mount.volume)) continue
      const row = await shown(tx.volume(mount.volume))
      if (row !== null) out.set(row.uid, row)
    }
  }
  return out
}
