import type { Engine } from '../../engines/engine.ts'
import { fail } from '../../model/errors.ts'
import { EngineError, type VolumeFacts } from '../../model/facts.ts'
import { physicalVolumeName } from '../../model/ids.ts'
import { ownership } from '../../model/labels.ts'
import type { SandboxRecord, VolumeRecord } from '../../model/records.ts'
import type { ReadTx, Store, WriteTx } from '../../store/store.ts'
import type { ClaimRequest } from '../rules/volumes.ts'
import { CasLost } from './commit.ts'

/** How long the engine may take to say whether a volume of this name exists, milliseconds. */
const LOOKUP_LIMIT_MS = 5_000

/** What the engine has under exactly the claim's name; asked before the transaction, since none may wait for an engine. */
export type Lookups = ReadonlyMap<string, VolumeFacts | null>

/** The store alone cannot tell: it does not know the claim, or knows somebody else's volume that nobody uses now. */
async function needsLookup(tx: ReadTx, engine: string, claim: string): Promise<boolean> {
  const row = await tx.volumeByClaim(engine, claim)
  if (row === null) return true
  return !row.managed && (await tx.holdersOf(row.uid)).length === 0
}

/** Fails closed: 503, and nothing is created. */
export async function lookUpClaims(
  store: Store,
  engine: Engine,
  claims: readonly string[],
  signal: AbortSignal,
): Promise<Lookups> {
  const distinct = [...new Set(claims)]
  const unknown = await store.read(async (tx) => {
    const out: string[] = []
    for (const claim of distinct) if (await needsLookup(tx, engine.id, claim)) out.push(claim)
    return out
  })
  const found = new Map<string, VolumeFacts | null>()
  for (const claim of unknown) {
    try {
      found.set(claim, await engine.inspectVolume(claim, { limitMs: LOOKUP_LIMIT_MS, signal }))
    } catch (error) {
      if (!(error instanceof EngineError)) throw error
      throw fail('SERVICE_UNAVAILABLE', {
        detail: `whether a volume "${claim}" exists could not be asked of ${engine.id} (${error.message})`,
      })
    }
  }
  return found
}

/** A row with everything a new volume starts with. */
export function newVolume(
  base: Pick<
    VolumeRecord,
    'uid' | 'claim' | 'kind' | 'owner' | 'retention' | 'shared' | 'sizeBytes' | 'notEnforced' | 'seed'
  >,
  engine: string,
  now: number,
): VolumeRecord {
  return {
    ...base,
    engine,
    physicalName: physicalVolumeName(base.claim, base.uid, 1),
    make: 1,
    discarded: [],
    managed: true,
    state: 'planned',
    engineCreatedAt: null,
    purge: null,
    message: '',
    backoff: null,
    createdAt: now,
    removedAt: null,
    version: 1,
  }
}

/** What the engine cannot honour of a request, in words. */
export function notEnforced(
  engine: Pick<Engine, 'id' | 'driver' | 'capabilities'>,
  asked: { sizeBytes: number | null; sizeText: string | null; storageClass: string | null },
): string[] {
  const out: string[] = []
  if (asked.sizeBytes !== null && !engine.capabilities.volumeSize) {
    out.push(`size ${asked.sizeText ?? asked.sizeBytes}: ${engine.id} cannot limit a volume's size`)
  }
  if (asked.storageClass !== null && engine.driver !== 'kubernetes') {
    out.push(`storage class ${asked.storageClass}: ${engine.id} has none`)
  }
  return out
}

/** The store has changed since the look-ups: they must be made again, outside the transaction. */
export class StaleLookups extends Error {}

interface Resolve {
  readonly tx: WriteTx
  readonly installation: string
  readonly engine: Engine
  readonly lookups: Lookups
  readonly sandbox: string
  readonly now: number
  readonly uid: () => string
}

/**
 * The volume that a claim names, made as a row when there is none. Runs in the transaction that inserts the sandbox,
 * so that of two sandboxes that race for a new claim one makes it and the other finds it.
 */
export async function resolveClaim(r: Resolve, request: ClaimRequest): Promise<VolumeRecord> {
  const row = await r.tx.volumeByClaim(r.engine.id, request.claim)
  if (row === null) return fromEngine(r, request)
  const holders = await r.tx.holdersOf(row.uid)
  if (!row.managed && holders.length === 0) return refreshUnmanaged(r, request, row)
  checkUsable(row, request, holders, r.sandbox)
  return row
}

function writes(holder: SandboxRecord, uid: string): boolean {
  return [...holder.spec.mounts, ...holder.imageMounts].some(
    (m) => m.kind === 'volume' && m.volume === uid && !m.readOnly,
  )
}

function checkUsable(
  row: VolumeRecord,
  request: ClaimRequest,
  holders: readonly SandboxRecord[],
  me: string,
): void {
  if (row.state === 'removing' || row.purge !== null) throw fail('VOLUME::REMOVING', { claim: request.claim })
  if (row.managed && row.retention === 'delete' && row.owner !== null && row.owner !== me) {
    throw fail('VOLUME::OWNED', { claim: request.claim, owner: row.owner })
  }
  const writers = holders.filter((h) => h.id !== me && writes(h, row.uid)).map((h) => h.id)
  if (!row.shared && writers.length > 0)
    throw fail('VOLUME::IN_USE', { claim: request.claim, holders: writers })
}

async function fromEngine(r: Resolve, request: ClaimRequest): Promise<VolumeRecord> {
  const facts = r.lookups.get(request.claim)
  // The row that made the look-up needless is gone since.
  if (facts === undefined) throw new StaleLookups(request.claim)
  if (facts === null) return makeManaged(r, request)
  await refuseOurs(r, request.claim, facts)
  const made: VolumeRecord = {
    ...newVolume(
      {
        uid: r.uid(),
        claim: request.claim,
        kind: 'claim',
        owner: null,
        retention: 'retain',
        shared: request.shared,
        sizeBytes: null,
        notEnforced: unmanagedNotes(request),
        seed: 'none',
      },
      r.engine.id,
      r.now,
    ),
    physicalName: request.claim,
    managed: false,
    state: 'ready',
    engineCreatedAt: facts.createdAt,
  }
  await r.tx.insertVolume(made)
  return made
}

/**
 * Somebody else's volume that no sandbox of ours uses: it may have been removed or made anew since it was remembered,
 * and its creation time is its identity.
 */
async function refreshUnmanaged(r: Resolve, request: ClaimRequest, row: VolumeRecord): Promise<VolumeRecord> {
  const facts = r.lookups.get(request.claim)
  if (facts === undefined) throw new StaleLookups(request.claim)
  if (facts !== null && facts.createdAt === row.engineCreatedAt && row.state === 'ready') return row
  const next: VolumeRecord =
    facts === null
      ? {
          ...row,
          state: 'removed',
          removedAt: r.now,
          message: 'no longer on the engine; it was never ours to remove',
        }
      : { ...row, state: 'ready', engineCreatedAt: facts.createdAt, message: '' }
  if (!(await r.tx.updateVolume(next))) throw new CasLost()
  return facts === null ? makeManaged(r, request) : { ...next, version: next.version + 1 }
}

function unmanagedNotes(request: ClaimRequest): string[] {
  const out: string[] = []
  if (request.deleteWithOwner)
    out.push("deleteOnSandboxTermination: the volume is somebody else's and is never removed")
  if (request.sizeText !== null)
    out.push(`size ${request.sizeText}: the volume is somebody else's and stays as it is`)
  return out
}

/** A claim must not reach a volume of ours by its physical name: that would open another sandbox's workspace. */
async function refuseOurs(r: Resolve, claim: string, facts: VolumeFacts): Promise<void> {
  const row = await r.tx.volumeByPhysicalName(r.engine.id, claim)
  if (row !== null && row.managed && row.owner !== null)
    throw fail('VOLUME::OWNED', { claim, owner: row.owner })
  if ((row !== null && row.managed) || ownership(facts, r.installation) !== 'foreign') {
    throw fail('VOLUME::CLAIM_TAKEN', { claim })
  }
}

async function makeManaged(r: Resolve, request: ClaimRequest): Promise<VolumeRecord> {
  if (!request.createIfNotExists) throw fail('VOLUME::CLAIM_NOT_FOUND', { claim: request.claim })
  const made = newVolume(
    {
      uid: r.uid(),
      claim: request.claim,
      kind: 'claim',
      owner: r.sandbox,
      retention: request.deleteWithOwner ? 'delete' : 'retain',
      shared: request.shared,
      sizeBytes: request.sizeBytes,
      notEnforced: notEnforced(r.engine, request),
      seed: 'none',
    },
    r.engine.id,
    r.now,
  )
  await r.tx.insertVolume(made)
  return made
}
