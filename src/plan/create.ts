import type { ImageFacts } from '../model/facts.ts'
import { instanceName, physicalVolumeName } from '../model/ids.ts'
import { volumeKey } from '../model/keys.ts'
import type { InstanceRef, Step, VolumeMount, VolumeRecord } from '../model/records.ts'
import { rest, take, need, tell, type Draft, type StatusInput } from './draft.ts'
import { covers, isExpectedVolume, normalPath, volumeMounts } from './mounts.ts'
import { openCreateUntil, settledAs } from './settle.ts'
import type { SandboxDecision, SandboxView } from './types.ts'

/** The words of a sandbox whose instance is being made: Pending at first, Starting when it had one before. */
function making(draft: Draft, reason: string, message: string): StatusInput {
  const first = draft.record.instanceSeq <= 1 && draft.record.lastExit === null
  return { phase: first ? 'Pending' : 'Starting', reason, message, difference: 'there is no instance yet' }
}

/**
 * The way from no instance to one that exists: volumes, then the image, then the create with every name chosen here.
 * The caller has made sure that no earlier instance can exist.
 */
export function planCreate(view: SandboxView, draft: Draft): SandboxDecision {
  const waiting = ensureVolumes(view, draft)
  if (waiting !== null) return waiting

  if (view.image === undefined) return need(view, 'image')
  if (view.image === null) return planPull(view, draft)
  for (const row of view.open) {
    if (row.step.kind === 'pull-image') draft.settled.push(settledAs(row, 'done', 'the image is present'))
  }
  const declared = adoptDeclaredVolumes(view, draft, view.image)
  if (declared !== null) return declared

  const reuse = view.open.find(
    (r) => r.step.kind === 'create-instance' && r.step.name === draft.record.instance?.name,
  )
  if (reuse !== undefined) {
    // What the earlier attempt may still do outlives the row, which its retry can close.
    const doubt = Math.max(draft.record.createDoubtUntil ?? 0, reuse.deadlineAt)
    draft.record = { ...draft.record, createDoubtUntil: doubt > view.now ? doubt : null }
  }
  const ref = chooseInstance(view, draft)
  markSeeding(view, draft)
  const step: Step = {
    kind: 'create-instance',
    name: ref.name,
    uid: ref.uid,
    number: ref.number,
    specHash: ref.specHash,
  }
  return take(
    draft,
    making(draft, 'Creating', `Instance ${ref.number} is being made.`),
    step,
    reuse?.id ?? null,
  )
}

/** Names the next instance, or keeps the name of one whose create has not been seen to succeed. */
function chooseInstance(view: SandboxView, draft: Draft): InstanceRef {
  const record = draft.record
  if (record.instance !== null) {
    const kept = { ...record.instance, specHash: record.specHash, generation: record.generation }
    draft.record = { ...record, instance: kept }
    return kept
  }
  const number = record.instanceSeq + 1
  const ref: InstanceRef = {
    number,
    name: instanceName(record.id, number),
    uid: view.fresh(),
    engineId: null,
    specHash: record.specHash,
    generation: record.generation,
    restartSeq: record.restartSeq,
    run: null,
    startedAt: null,
    upSince: null,
  }
  draft.record = { ...record, instance: ref, instanceSeq: number }
  return ref
}

/** Every volume must be there, and none half-seeded, before an instance that mounts it is made. */
function ensureVolumes(view: SandboxView, draft: Draft): SandboxDecision | null {
  const inFlight = openCreateUntil(view.open, view.now, draft.record.createDoubtUntil)
  for (const mount of volumeMounts(draft.record)) {
    const row = view.volumes.find((v) => v.uid === mount.volume)
    if (row === undefined || row.state === 'removed' || row.state === 'removing') {
      return rest(draft, {
        phase: 'Lost',
        reason: 'VolumeGone',
        message: `The volume ${mount.claim} is ${row === undefined ? 'not known' : row.state}. Nothing is started without it.`,
        difference: 'a volume is missing',
      })
    }
    if (row.state === 'lost') return lostVolume(draft, row)
    if (row.state === 'ready' && isMissing(view, row)) {
      draft.kicks.add(volumeKey(row.uid))
      return lostVolume(draft, row)
    }
    if (row.state === 'planned') {
      draft.kicks.add(volumeKey(row.uid))
      const text = row.message === '' ? `The volume ${row.claim} is being made.` : row.message
      const blocked = row.backoff !== null
      return rest(draft, {
        ...making(draft, blocked ? 'VolumeBlocked' : 'WaitingForVolume', text),
        ...(blocked ? { phase: 'Blocked' as const } : {}),
        next: 'create-volume',
        nextAt: row.backoff?.nextAt ?? null,
      })
    }
    if (row.seed === 'seeding' && view.observed.known && view.observed.value.instance === null) {
      return remakeHalfSeeded(view, draft, row, inFlight)
    }
  }
  return null
}

/** A row that says ready is not enough: an engine would silently make an empty volume under a name that is missing. */
function isMissing(view: SandboxView, row: VolumeRecord): boolean {
  if (!view.observed.known) return true
  const facts = view.observed.value.volumes.get(row.physicalName)
  return facts === undefined || facts === null || !isExpectedVolume(row, facts, view.installation)
}

export function lostVolume(draft: Draft, row: VolumeRecord): SandboxDecision {
  return rest(draft, {
    phase: 'Lost',
    reason: 'VolumeLost',
    message: `The volume ${row.claim} (${row.physicalName}) is gone from the engine, so nothing is started on an empty one. It comes back by itself if the volume does; \`recover\` goes on with a new, empty one.`,
    difference: `the volume ${row.claim} is missing`,
  })
}

/** A create that was to seed this volume did not finish: nothing ever ran on it, so it is made anew, never repaired. */
function remakeHalfSeeded(
  view: SandboxView,
  draft: Draft,
  row: VolumeRecord,
  inFlight: number | null,
): SandboxDecision {
  draft.changedVolumes.set(row.uid, remade(row, view.now))
  draft.kicks.add(volumeKey(row.uid))
  tell(
    draft,
    'Normal',
    'VolumeRemade',
    `The half-seeded volume ${row.physicalName} is made anew; nothing had run on it.`,
  )
  return rest(
    draft,
    { ...making(draft, 'WaitingForVolume', `The volume ${row.claim} is being made.`), next: 'create-volume' },
    inFlight,
  )
}

/**
 * The row with the next physical name; the former one is left to be removed. The name is counted by seconds since 1970:
 * a row that was restored from a backup does not know which numbers were used since, and what stands under one of them
 * may hold data.
 */
export function remade(row: VolumeRecord, now: number): VolumeRecord {
  const make = Math.max(row.make + 1, Math.floor(now / 1000))
  return {
    ...row,
    make,
    physicalName: physicalVolumeName(row.claim, row.uid, make),
    discarded: [...row.discarded, row.physicalName],
    state: 'planned',
    seed: row.seed === 'none' ? 'none' : 'pending',
    engineCreatedAt: null,
    message: '',
    backoff: null,
  }
}

function markSeeding(view: SandboxView, draft: Draft): void {
  for (const mount of volumeMounts(draft.record)) {
    const row = view.volumes.find((v) => v.uid === mount.volume)
    if (row?.seed === 'pending') draft.changedVolumes.set(row.uid, { ...row, seed: 'seeding' })
  }
}

function planPull(view: SandboxView, draft: Draft): SandboxDecision {
  const image = draft.record.spec.image
  if (!view.canPull) {
    return rest(
      draft,
      {
        phase: 'Blocked',
        reason: 'ImageMissing',
        message: `The engine has no image "${image}" and cannot pull one.`,
        difference: 'the image is missing',
      },
      view.now + 30_000,
    )
  }
  const reuse = view.open.find((r) => r.step.kind === 'pull-image' && r.step.image === image)
  return take(
    draft,
    making(draft, 'Pulling', `The image ${image} is being pulled.`),
    { kind: 'pull-image', image },
    reuse?.id ?? null,
  )
}

/** The claim of the volume for a path that an image declares. */
export function imageClaim(path: string): string {
  return `image${path.replaceAll(/[^a-z0-9]+/gi, '-').toLowerCase()}`.replace(/-+$/, '').slice(0, 60)
}

/**
 * Paths that the image declares as `VOLUME` and no mount covers get a managed volume each, or data would hide in
 * anonymous volumes that leak (DESIGN §5). They go with the sandbox.
 */
function adoptDeclaredVolumes(view: SandboxView, draft: Draft, image: ImageFacts): SandboxDecision | null {
  const record = draft.record
  if (record.imageId === image.id) return null
  const covered = [...record.spec.mounts, ...record.imageMounts].map((m) => m.path)
  const added: VolumeMount[] = []
  for (const path of image.volumes.map(normalPath)) {
    if (covered.some((c) => covers(c, path))) continue
    const uid = view.fresh()
    const claim = imageClaim(path)
    added.push({ kind: 'volume', name: claim, volume: uid, claim, path, readOnly: false })
    draft.newVolumes.push({
      uid,
      claim,
      engine: record.engine,
      physicalName: physicalVolumeName(claim, uid, 1),
      make: 1,
      discarded: [],
      kind: 'image',
      managed: true,
      owner: record.id,
      retention: 'delete',
      shared: false,
      sizeBytes: null,
      notEnforced: [],
      state: 'planned',
      seed: 'pending',
      engineCreatedAt: null,
      purge: null,
      message: '',
      backoff: null,
      createdAt: view.now,
      removedAt: null,
      version: 1,
    })
    draft.kicks.add(volumeKey(uid))
  }
  draft.record = { ...record, imageId: image.id, imageMounts: [...record.imageMounts, ...added] }
  if (added.length === 0) return null
  return rest(draft, {
    ...making(
      draft,
      'WaitingForVolume',
      `Volumes for the paths that the image declares are being made: ${added.map((m) => m.path).join(', ')}.`,
    ),
    next: 'create-volume',
  })
}
