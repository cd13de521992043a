import { fail } from '../../model/errors.ts'
import type { Engine } from '../../engines/engine.ts'
import type { Mount, SandboxRecord, SandboxSpec, VolumeRecord } from '../../model/records.ts'
import { specHash } from '../../model/spec.ts'
import { sandboxKey, volumeKey } from '../../reconcile/controller.ts'
import type { ReadTx, WriteTx } from '../../store/store.ts'
import type { ApiDeps } from '../deps.ts'
import { createdBody } from '../present/sandbox.ts'
import type { CreateRequest } from '../rules/create.ts'
import { isUnder, WORKSPACE_PATH } from '../rules/paths.ts'
import { lookUpClaims, newVolume, notEnforced, resolveClaim, StaleLookups, type Lookups } from './claims.ts'
import { commitIntent, replay, type Committed, type Idempotency, type Outcome } from './commit.ts'

/** The default workspace's size where the engine can size volumes, bytes (DESIGN §5). */
const WORKSPACE_BYTES: number = 2 * 2 ** 30
/** How often look-ups are made anew when the store changes under them. */
const LOOKUP_TRIES = 3

type Deps = Pick<ApiDeps, 'store' | 'controller' | 'clock' | 'ids'>

/**
 * Records a sandbox that is to run, with its volumes, in one transaction. The engine is only asked before it, and
 * only about claims that the store does not know.
 */
export async function createSandbox(
  deps: Deps,
  engine: Engine,
  request: CreateRequest,
  idem: Idempotency | null,
  signal: AbortSignal,
): Promise<Committed> {
  const claims = request.mounts.flatMap((m) => (m.kind === 'claim' ? [m.request.claim] : []))
  for (let i = 0; i < LOOKUP_TRIES; i++) {
    const earlier = idem === null ? null : await deps.store.read((tx) => replay(tx, idem, deps.clock.now()))
    if (earlier !== null) return earlier
    const lookups: Lookups =
      claims.length === 0 ? new Map() : await lookUpClaims(deps.store, engine, claims, signal)
    try {
      return await commitIntent(deps, idem, (tx, now) => insert({ deps, tx, engine, request, lookups, now }))
    } catch (error) {
      if (!(error instanceof StaleLookups)) throw error
    }
  }
  throw fail('SERVICE_UNAVAILABLE', { detail: 'the claims of this request are changing too fast' })
}

interface Insert {
  readonly deps: Deps
  readonly tx: WriteTx
  readonly engine: Engine
  readonly request: CreateRequest
  readonly lookups: Lookups
  readonly now: number
}

async function insert(i: Insert): Promise<Outcome> {
  const { request, tx, now } = i
  if (request.name !== null) await checkNameFree(tx, request.name, null)
  await checkHostMounts(tx, request)
  const id = i.deps.ids.next()
  const volumes = new Map<string, VolumeRecord>()
  const mounts = await resolveMounts(i, id, volumes)
  const record = newRecord(i, id, mounts)
  await tx.insertSandbox(record)
  await tx.appendEvent(
    {
      subject: 'sandbox',
      id,
      type: 'Normal',
      reason: 'Created',
      message: `Accepted: image ${request.image}, ${mounts.length} mount(s).`,
    },
    now,
  )
  const planned = [...volumes.values()].filter((v) => v.state === 'planned').map((v) => volumeKey(v.uid))
  return { status: 202, body: createdBody(record, volumes), kicks: [...planned, sandboxKey(id)] }
}

/** Names and ids are one name space for people, so a name may not be another sandbox's id either. */
export async function checkNameFree(tx: ReadTx, name: string, me: string | null): Promise<void> {
  const holder = (await tx.sandboxByName(name)) ?? (await tx.sandbox(name))
  if (holder !== null && holder.id !== me) throw fail('SANDBOX::NAME_TAKEN', { name, id: holder.id })
}

/**
 * Beneath a directory that another sandbox can write, a path is whatever that sandbox wants it to be: it could plant
 * a symlink there.
 */
async function checkHostMounts(tx: ReadTx, request: CreateRequest): Promise<void> {
  const hosts = request.mounts.flatMap((m) => (m.kind === 'host' ? [m] : []))
  if (hosts.length === 0) return
  const { items } = await tx.sandboxes({})
  for (const other of items) {
    for (const theirs of other.spec.mounts) {
      if (theirs.kind !== 'host' || theirs.readOnly) continue
      const beneath = hosts.find(
        (m) => m.hostPath !== theirs.hostPath && isUnder(m.hostPath, theirs.hostPath),
      )
      if (beneath === undefined) continue
      const message = `lies beneath ${theirs.hostPath}, which sandbox ${other.id} can write`
      throw fail('SANDBOX::INVALID_PARAMETER', { issues: [{ path: beneath.field, message }] })
    }
  }
}

async function resolveMounts(i: Insert, id: string, volumes: Map<string, VolumeRecord>): Promise<Mount[]> {
  const mounts: Mount[] = []
  if (i.request.workspace) {
    const volume = workspaceVolume(i, id)
    await i.tx.insertVolume(volume)
    volumes.set(volume.uid, volume)
    mounts.push({
      kind: 'volume',
      name: 'workspace',
      volume: volume.uid,
      claim: volume.claim,
      path: WORKSPACE_PATH,
      readOnly: false,
    })
  }
  for (const mount of i.request.mounts) {
    const { name, path, readOnly } = mount
    if (mount.kind === 'host') {
      mounts.push({ kind: 'host', name, hostPath: mount.hostPath, path, readOnly })
      continue
    }
    const volume = await resolveClaim(
      {
        tx: i.tx,
        installation: i.deps.store.installation,
        engine: i.engine,
        lookups: i.lookups,
        sandbox: id,
        now: i.now,
        uid: () => i.deps.ids.next(),
      },
      mount.request,
    )
    volumes.set(volume.uid, volume)
    mounts.push({ kind: 'volume', name, volume: volume.uid, claim: volume.claim, path, readOnly })
  }
  return mounts
}

function workspaceVolume(i: Insert, owner: string): VolumeRecord {
  return newVolume(
    {
      uid: i.deps.ids.next(),
      claim: 'workspace',
      kind: 'workspace',
      owner,
      retention: 'delete',
      shared: false,
      sizeBytes: WORKSPACE_BYTES,
      notEnforced: notEnforced(i.engine, { sizeBytes: WORKSPACE_BYTES, sizeText: '2Gi', storageClass: null }),
      seed: 'pending',
    },
    i.engine.id,
    i.now,
  )
}

function newRecord(i: Insert, id: string, mounts: readonly Mount[]): SandboxRecord {
  const { request, now } = i
  const spec: SandboxSpec = {
    image: request.image,
    entrypoint: request.entrypoint,
    env: request.env,
    limits: request.limits,
    mounts,
    workingDir: request.workingDir,
    user: request.user,
  }
  return {
    id,
    name: request.name,
    engine: i.engine.id,
    createdAt: now,
    updatedAt: now,
    spec,
    specHash: specHash(spec),
    generation: 1,
    observedGeneration: 0,
    desired: 'running',
    desiredReason: 'create',
    desiredAt: now,
    restartPolicy: request.restartPolicy,
    restartSeq: 0,
    recoverSeq: 0,
    recoveredSeq: 0,
    startAsked: false,
    mayReplaceVolumes: false,
    createDoubtUntil: null,
    stopDoubtUntil: null,
    expiresAt: request.timeoutMs === null ? null : now + request.timeoutMs,
    stopGraceMs: request.stopGraceMs,
    metadata: request.metadata,
    imageMounts: [],
    imageId: null,
    instanceSeq: 0,
    instance: null,
    lastExit: null,
    restarts: 0,
    backoff: null,
    breaker: null,
    status: {
      phase: 'Pending',
      reason: 'Accepted',
      message: 'Accepted; the first instance is to be made.',
      difference: 'no instance yet',
      next: 'create the first instance',
      nextAt: now,
    },
    deletedAt: null,
    version: 1,
  }
}
