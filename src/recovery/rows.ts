import type { InstanceOrigin } from '../engines/engine.ts'
import type { VolumeFacts } from '../model/facts.ts'
import { parseVolumeName } from '../model/ids.ts'
import { LABEL, optedInFor } from '../model/labels.ts'
import type {
  Desired,
  ExitRecord,
  InstanceRef,
  Mount,
  SandboxRecord,
  SandboxSpec,
  VolumeMount,
  VolumeRecord,
} from '../model/records.ts'
import { specHash } from '../model/spec.ts'
import { imageClaim } from '../plan/create.ts'
import { normalPath, SANDBOX_DIR } from '../plan/mounts.ts'
import { isOwn, type Contents, type FoundInstance } from './contents.ts'

/** Docker's own grace between a polite stop and a kill, ms: what a create without one gets. */
const STOP_GRACE_MS = 10_000

/** What labels and inspect cannot tell of anything, in words for the person who has to set it again. */
export const UNKNOWN: readonly string[] = [
  'sandbox names, metadata and expiry: none is set, so nothing expires',
  'restart policies: none is set, so nothing restarts by itself but after its engine did',
  'stop grace: 10 s; idempotency keys, API keys, events and what was deleted before: none',
  'volumes whose labels do not say that they go with their sandbox: retained; sizes and sharing of claims: unknown',
]

export interface RebuiltSandbox {
  readonly record: SandboxRecord
  readonly instance: InstanceRef
  /** The rebuilt spec is, by its hash, exactly what the instance was made from. */
  readonly exact: boolean
  readonly notes: readonly string[]
}

export interface Rebuilt {
  readonly sandboxes: readonly RebuiltSandbox[]
  readonly volumes: readonly VolumeRecord[]
  /** Objects of the installation that no row stands for, and why: they are quarantined, never removed. */
  readonly left: readonly {
    readonly kind: 'instance' | 'volume'
    readonly name: string
    readonly why: string
  }[]
}

interface Base {
  readonly installation: string
  readonly engine: string
  readonly contents: Contents
  readonly now: number
  /** Uids for volumes of others, which have none. */
  readonly fresh: () => string
}

/** Rows for what an engine has of an installation. Pure: the same contents give the same rows. */
export function rebuildRows(b: Base): Rebuilt {
  const left: Rebuilt['left'][number][] = []
  const newest = newestOf(b.contents.instances, left)
  const volumes = new Map<string, VolumeRecord>()
  const mounted = new Set(
    newest.flatMap(({ origin }) =>
      origin.mounts.flatMap((m) => (m.source.kind === 'volume' ? [m.source.name] : [])),
    ),
  )
  const owners = new Set(newest.map(({ facts }) => facts.labels[LABEL.sandbox] ?? ''))
  for (const facts of b.contents.volumes.filter((v) => isOwn(v, b.installation)))
    addOwn(b, volumes, facts, owners, mounted, left)
  for (const name of mounted) addForeign(b, volumes, name)
  const byName = new Map([...volumes.values()].map((v) => [v.physicalName, v]))
  const sandboxes = newest.map((found) => sandboxOf(b, found, byName))
  return { sandboxes, volumes: [...settled(volumes, sandboxes)], left }
}

function numberOf({ facts }: FoundInstance): number {
  const number = Number(facts.labels[LABEL.instance])
  return Number.isSafeInteger(number) && number > 0 ? number : 0
}

/** One instance for each sandbox: that of the highest number. An older one beside it was on its way out. */
function newestOf(all: readonly FoundInstance[], left: Rebuilt['left'][number][]): readonly FoundInstance[] {
  const byId = new Map<string, FoundInstance>()
  for (const found of all.toSorted((a, b) => numberOf(b) - numberOf(a))) {
    const id = found.facts.labels[LABEL.sandbox] ?? ''
    const { name } = found.facts
    if (id === '' || numberOf(found) === 0)
      left.push({ kind: 'instance', name, why: 'its labels do not tell which sandbox it is of' })
    else if (byId.has(id)) left.push({ kind: 'instance', name, why: `sandbox ${id} has a newer instance` })
    else byId.set(id, found)
  }
  return [...byId.values()].toSorted((a, b) => a.facts.createdAt - b.facts.createdAt)
}

function blankVolume(b: Base, facts: VolumeFacts): VolumeRecord {
  return {
    uid: '',
    claim: facts.name,
    engine: b.engine,
    physicalName: facts.name,
    make: 1,
    discarded: [],
    kind: 'claim',
    managed: true,
    owner: null,
    retention: 'retain',
    shared: false,
    sizeBytes: null,
    notEnforced: [],
    state: 'ready',
    seed: 'none',
    engineCreatedAt: facts.createdAt,
    purge: null,
    message: '',
    backoff: null,
    createdAt: Math.min(facts.createdAt, b.now),
    removedAt: null,
    version: 1,
  }
}

/** A volume with our labels. Of several makes of one the mounted one counts, else the newest. */
function addOwn(
  b: Base,
  volumes: Map<string, VolumeRecord>,
  facts: VolumeFacts,
  owners: ReadonlySet<string>,
  mounted: ReadonlySet<string>,
  left: Rebuilt['left'][number][],
): void {
  const uid = facts.labels[LABEL.uid] ?? ''
  const parsed = parseVolumeName(facts.name, uid)
  const label = facts.labels[LABEL.sandbox] ?? null
  // One whose sandbox has no instance any more stands by itself, and is kept until a person removes it.
  const owner = label !== null && owners.has(label) ? label : null
  const row: VolumeRecord = {
    ...blankVolume(b, facts),
    uid,
    claim: parsed?.claim ?? facts.name,
    make: parsed?.make ?? 1,
    owner,
    retention: owner !== null && optedInFor(facts.labels) === owner ? 'delete' : 'retain',
  }
  const other = volumes.get(uid)
  const wins =
    other === undefined ||
    (mounted.has(row.physicalName) && !mounted.has(other.physicalName)) ||
    (mounted.has(row.physicalName) === mounted.has(other.physicalName) && row.make > other.make)
  const loser = wins ? other : row
  if (wins) volumes.set(uid, row)
  if (loser !== undefined)
    left.push({ kind: 'volume', name: loser.physicalName, why: 'another make of the same volume is used' })
}

/** Somebody else's volume that an instance of ours mounts: used, never labelled or removed. */
function addForeign(b: Base, volumes: Map<string, VolumeRecord>, name: string): void {
  const facts = b.contents.volumes.find((v) => v.name === name)
  if (facts === undefined || [...volumes.values()].some((v) => v.physicalName === name)) return
  const uid = b.fresh()
  volumes.set(uid, { ...blankVolume(b, facts), uid, managed: false })
}

/** What a volume is for follows from where its own sandbox mounts it; claims must stay unique. */
function settled(
  volumes: ReadonlyMap<string, VolumeRecord>,
  sandboxes: readonly RebuiltSandbox[],
): readonly VolumeRecord[] {
  const claims = new Set<string>()
  // Those of others first: their claim is their name, while one of ours has another to fall back on.
  return [...volumes.values()]
    .toSorted((a, b) => Number(a.managed) - Number(b.managed))
    .map((v) => {
      const holders = sandboxes.filter((s) => mountsOf(s.record).some((m) => m.volume === v.uid))
      const own = holders.find((s) => s.record.id === v.owner)?.record
      const isImage = own?.imageMounts.some((m) => m.volume === v.uid) === true
      const isWorkspace = own?.spec.mounts.some((m) => isWorkspaceMount(m, v)) === true
      if (isImage) return { ...v, kind: 'image', seed: 'seeded' }
      if (isWorkspace) return { ...v, kind: 'workspace', seed: 'seeded' }
      const claim = claims.has(v.claim) ? v.physicalName : v.claim
      claims.add(claim)
      const writers = holders.filter((s) => mountsOf(s.record).some((m) => m.volume === v.uid && !m.readOnly))
      return { ...v, claim, shared: writers.length > 1 }
    })
}

const mountsOf = (r: SandboxRecord): readonly VolumeMount[] => [
  ...r.spec.mounts.flatMap((m) => (m.kind === 'volume' ? [m] : [])),
  ...r.imageMounts,
]

const isWorkspaceMount = (m: Mount, v: VolumeRecord): boolean =>
  m.kind === 'volume' && m.volume === v.uid && v.claim === 'workspace' && normalPath(m.path) === SANDBOX_DIR

/** Mounts as they were asked for, and those that we added for paths of the image. */
function mountsFrom(
  origin: InstanceOrigin,
  id: string,
  byName: ReadonlyMap<string, VolumeRecord>,
): { mounts: Mount[]; imageMounts: VolumeMount[] } {
  const mounts: Mount[] = []
  const imageMounts: VolumeMount[] = []
  for (const [i, { path, readOnly, source }] of origin.mounts.entries()) {
    if (source.kind === 'host') {
      mounts.push({ kind: 'host', name: `host-${i}`, hostPath: source.path, path, readOnly })
      continue
    }
    const row = byName.get(source.name)
    if (row === undefined) continue
    const { uid: volume, claim } = row
    const mount: VolumeMount = { kind: 'volume', name: claim, volume, claim, path, readOnly }
    const added = row.managed && row.owner === id && claim === imageClaim(normalPath(path))
    if (added) imageMounts.push(mount)
    else mounts.push(mount)
  }
  return { mounts, imageMounts }
}

/** An end that was there before this store was: nothing follows from it any more, whoever brought it about. */
function endOf({ facts }: FoundInstance, instance: number, seenAt: number): ExitRecord | null {
  const { state, startedAt, finishedAt, exitCode: code } = facts
  if (state === 'running' || startedAt === null) return null
  return { instance, startedAt, finishedAt, code, class: 'external', seenAt }
}

/** What Holdfast itself puts into every environment. */
const OWN_ENV = ['HOLDFAST_SANDBOX_ID', 'HOLDFAST_ENDPOINT']

function specFrom(origin: InstanceOrigin, mounts: readonly Mount[]): SandboxSpec {
  const { image, entrypoint, limits, workingDir, user } = origin
  const env = Object.fromEntries(Object.entries(origin.env).filter(([name]) => !OWN_ENV.includes(name)))
  return { image, entrypoint, env, limits, mounts, workingDir, user }
}

function sandboxOf(b: Base, found: FoundInstance, byName: ReadonlyMap<string, VolumeRecord>): RebuiltSandbox {
  const { facts, origin } = found
  const id = facts.labels[LABEL.sandbox] ?? ''
  const parts = mountsFrom(origin, id, byName)
  const { imageMounts } = parts
  const spec = specFrom(origin, parts.mounts)
  // The label is what the instance was made from; a spec that comes out differently must not make it drift.
  const hash = facts.labels[LABEL.specHash] ?? specHash(spec)
  const exact = specHash(spec) === hash
  const notes = [
    ...(exact ? [] : ['its spec is what the engine tells, which is not to the letter what was asked for']),
    ...(origin.imageKnown
      ? []
      : ['its image is gone from the engine, so what came from the image could not be left out']),
  ]
  const number = numberOf(found)
  const instance: InstanceRef = {
    number,
    name: facts.name,
    uid: facts.labels[LABEL.uid] ?? '',
    engineId: facts.id,
    specHash: hash,
    generation: 1,
    restartSeq: 0,
    run: facts.run,
    startedAt: facts.startedAt,
    upSince: null,
  }
  const desired: Desired = facts.state !== 'running' ? 'stopped' : facts.paused ? 'paused' : 'running'
  const phase = { running: 'Running', paused: 'Paused', stopped: 'Stopped', deleted: 'Stopping' } as const
  const createdAt = Math.min(facts.createdAt, b.now)
  const record: SandboxRecord = {
    id,
    name: null,
    engine: b.engine,
    createdAt,
    updatedAt: b.now,
    spec,
    specHash: hash,
    generation: 1,
    observedGeneration: 1,
    desired,
    desiredReason: 'rebuilt',
    desiredAt: createdAt,
    restartPolicy: { kind: 'no' },
    restartSeq: 0,
    recoverSeq: 0,
    recoveredSeq: 0,
    startAsked: false,
    mayReplaceVolumes: false,
    createDoubtUntil: null,
    stopDoubtUntil: null,
    expiresAt: null,
    stopGraceMs: STOP_GRACE_MS,
    metadata: {},
    imageMounts,
    imageId: null,
    instanceSeq: number,
    instance,
    lastExit: endOf(found, number, b.now),
    restarts: 0,
    backoff: null,
    breaker: null,
    status: {
      phase: phase[desired],
      reason: 'Rebuilt',
      message: 'Found on the engine when the store was rebuilt.',
      difference: '',
      next: '',
      nextAt: null,
    },
    deletedAt: null,
    version: 1,
  }
  return { record, instance, exact, notes }
}
