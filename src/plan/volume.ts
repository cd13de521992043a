import { sandboxKey } from '../model/keys.ts'
import type { VolumeFacts } from '../model/facts.ts'
import { isExactly, LABEL } from '../model/labels.ts'
import type { EventDraft, Step, Tombstone, VolumeRecord } from '../model/records.ts'
import { BACKOFF_MAX_MS, dueAt } from './backoff.ts'
import { doubtsByClock, rowsByClock } from './limits.ts'
import { withholdVolume } from './hold.ts'
import { isExpectedVolume } from './mounts.ts'
import { openCreateUntil, settledAs } from './settle.ts'
import type { SettledRow, VolumeDecision, VolumeView } from './types.ts'

/**
 * Volumes: one rule for their removal (DESIGN §5), evaluated here and nowhere else, level-triggered:
 *
 * Remove V when a purge of V's uid is recorded, or V has retention `delete`, was made by us for sandbox S, and S is
 * desired `deleted`; and every instance of S is confirmed absent; and no other sandbox mounts V; and the object still
 * carries our labels for V. Otherwise keep it, and say why.
 */
export function planVolume(given: VolumeView): VolumeDecision {
  const { now, owner } = given
  const view = {
    ...given,
    owner: owner === null ? null : doubtsByClock(owner, now),
    open: rowsByClock(given.open, now),
    ownerOpen: rowsByClock(given.ownerOpen, now),
  }
  return withholdVolume(view, decide(view))
}

function decide(view: VolumeView): VolumeDecision {
  const d: Draft = { view, record: view.record, settled: [], tombstones: [], events: [], kicks: new Set() }
  if (view.record.state === 'removed') return rest(d, view.record.message)
  if (!view.observed.known) return rest(d, `The engine could not be asked: ${view.observed.error}.`)
  const seen = view.observed.value
  const facts = seen.get(view.record.physicalName) ?? null
  settleOpen(d, seen)
  if (!view.record.managed) return planUnmanaged(d, facts)

  const held = holdForBackoff(d)
  if (held !== null) return held
  const discarded = planDiscarded(d, seen)
  if (discarded !== null) return discarded

  switch (view.record.state) {
    case 'planned':
      return planPlanned(d, facts)
    case 'ready':
      return planReady(d, facts)
    case 'lost':
      return planLost(d, facts)
    case 'removing':
      return planRemoving(d, facts)
  }
}

/** The reason in the journal that allows the removal of an unlabelled volume. */
export const SILENT = 'made silently by the engine'
/**
 * The same for one that is not empty: a create of ours that landed late made it and filled it from the image, and the
 * instance never ran, so nothing but the image's content can be in it.
 */
export const SILENT_SEEDED = 'made and filled by a create that landed late'

interface Draft {
  readonly view: VolumeView
  record: VolumeRecord
  readonly settled: SettledRow[]
  readonly tombstones: Tombstone[]
  readonly events: EventDraft[]
  readonly kicks: Set<string>
}

function done(d: Draft, extra: Partial<VolumeDecision>): VolumeDecision {
  return {
    record: d.record,
    guardNoHolders: false,
    settled: d.settled,
    tombstones: d.tombstones,
    events: d.events,
    step: null,
    retryOf: null,
    kicks: [...d.kicks],
    wakeAt: null,
    ...extra,
  }
}

function rest(d: Draft, message: string, wakeAt: number | null = null): VolumeDecision {
  if (d.record.message !== message) d.record = { ...d.record, message }
  return done(d, { wakeAt })
}

function tell(d: Draft, type: 'Normal' | 'Warning', reason: string, message: string): void {
  d.events.push({ subject: 'volume', id: d.record.uid, type, reason, message })
}

function kickHolders(d: Draft): void {
  for (const h of d.view.holders) d.kicks.add(sandboxKey(h.id))
  if (d.record.owner !== null) d.kicks.add(sandboxKey(d.record.owner))
}

function settleOpen(d: Draft, seen: ReadonlyMap<string, VolumeFacts | null>): void {
  for (const row of d.view.open) {
    if (row.step.kind === 'create-volume') {
      const facts = seen.get(row.step.name)
      if (
        facts &&
        isExactly(facts, { installation: d.view.installation, name: row.step.name, uid: row.step.uid })
      ) {
        d.settled.push(settledAs(row, 'done', 'seen'))
      } else if (row.deadlineAt <= d.view.now && row.step.name !== d.record.physicalName) {
        d.settled.push(settledAs(row, 'abandoned', 'made anew under another name'))
      }
    }
    if (row.step.kind === 'remove-volume' && (seen.get(row.step.name) ?? null) === null) {
      d.settled.push(settledAs(row, 'done', 'seen'))
    }
  }
}

function retryOf(d: Draft, kind: Step['kind'], name: string): number | null {
  const row = d.view.open.find(
    (r) =>
      r.step.kind === kind &&
      'name' in r.step &&
      r.step.name === name &&
      d.settled.every((s) => s.id !== r.id),
  )
  return row?.id ?? null
}

function holdForBackoff(d: Draft): VolumeDecision | null {
  const backoff = d.record.backoff
  if (backoff === null) return null
  const at = dueAt(backoff.nextAt, BACKOFF_MAX_MS, d.view.now)
  if (at <= d.view.now) return null
  return rest(d, `${backoff.error} (attempt ${backoff.attempts}; the next follows by itself)`, at)
}

/** Somebody else's volume: used and watched, never labelled, made or removed. Its row goes when nobody mounts it. */
function planUnmanaged(d: Draft, facts: VolumeFacts | null): VolumeDecision {
  if (d.view.holders.length === 0) {
    const message = 'It is no longer used here. It belongs to somebody else and is untouched.'
    d.record = { ...d.record, state: 'removed', removedAt: d.view.now, message }
    return done(d, { guardNoHolders: true })
  }
  if (facts === null || !isExpectedVolume(d.record, facts, d.view.installation)) {
    if (d.record.state !== 'lost') {
      d.record = { ...d.record, state: 'lost' }
      tell(
        d,
        'Warning',
        'VolumeLost',
        `The volume ${d.record.physicalName}, which is not ours, is gone or was replaced.`,
      )
      kickHolders(d)
    }
    return rest(d, 'It is gone from the engine, or another one stands in its place.')
  }
  if (d.record.state !== 'ready') {
    d.record = { ...d.record, state: 'ready' }
    kickHolders(d)
  }
  return rest(d, 'It belongs to somebody else: it is used, never labelled or removed.')
}

/** Earlier, half-seeded makes: nothing ran on them. They wait until no create that mounts them can still land. */
function planDiscarded(d: Draft, seen: ReadonlyMap<string, VolumeFacts | null>): VolumeDecision | null {
  const name = d.record.discarded[0]
  if (name === undefined) return null
  const facts = seen.get(name) ?? null
  const until = openCreateUntil(
    [...d.view.ownerOpen, ...d.view.open],
    d.view.now,
    d.view.owner?.createDoubtUntil,
  )
  if (facts === null) {
    if (until !== null) return d.record.state === 'planned' ? null : rest(d, d.record.message, until)
    // Its tombstone keeps the name recognisable, should a call land even later and make it again.
    const { uid, engine } = d.record
    d.tombstones.push({ uid, kind: 'volume', name, engine, at: d.view.now })
    d.record = { ...d.record, discarded: d.record.discarded.slice(1) }
    return done(d, { wakeAt: d.view.now })
  }
  if (!isExactly(facts, { installation: d.view.installation, name, uid: d.record.uid })) {
    // Made silently by a late create: the sweep knows it by its name's tombstone.
    const { uid, engine } = d.record
    d.tombstones.push({ uid, kind: 'volume', name, engine, at: d.view.now })
    d.record = { ...d.record, discarded: d.record.discarded.slice(1) }
    return done(d, { wakeAt: d.view.now })
  }
  // Making the next one does not wait for the removal of the former.
  if (d.record.state === 'planned') return null
  if (until !== null) return rest(d, d.record.message, until)
  return removal(d, name, 'half-seeded, made anew')
}

function removal(d: Draft, name: string, why: string): VolumeDecision {
  const step: Step = { kind: 'remove-volume', uid: d.record.uid, name, why }
  return done(d, { step, retryOf: retryOf(d, 'remove-volume', name) })
}

/** Consent by the owner's delete: retention `delete`, made by us for it, and it is desired `deleted` or finished. */
function ownerIsGoing(d: Draft): boolean {
  if (d.record.owner === null || d.record.retention !== 'delete') return false
  return d.view.ownerBuried || d.view.owner?.desired === 'deleted'
}

/** Every instance of the owner is confirmed absent: its row let go of the last one, and no create can still land. */
function ownerIsAbsent(d: Draft): boolean {
  const owner = d.view.owner
  if (owner === null) return d.view.ownerBuried
  if (owner.createDoubtUntil !== null && owner.createDoubtUntil > d.view.now) return false
  return owner.instance === null && d.view.ownerOpen.every((r) => r.step.kind !== 'create-instance')
}

function otherHolders(d: Draft): readonly string[] {
  return d.view.holders.filter((h) => h.id !== d.record.owner).map((h) => h.id)
}

function planPlanned(d: Draft, facts: VolumeFacts | null): VolumeDecision {
  const consent = d.record.purge !== null || ownerIsGoing(d)
  const others = otherHolders(d)
  if (consent && others.length > 0) return rest(d, `It is kept while ${others.join(', ')} mounts it.`)
  if (consent && (d.record.owner === null || d.record.purge !== null || ownerIsAbsent(d)))
    return beginRemoval(d)
  if (consent) return rest(d, 'It goes with its sandbox, once that is gone.')
  if (facts === null) {
    const step: Step = { kind: 'create-volume', uid: d.record.uid, name: d.record.physicalName }
    return done(d, { step, retryOf: retryOf(d, 'create-volume', d.record.physicalName) })
  }
  if (isExpectedVolume(d.record, facts, d.view.installation)) {
    d.record = { ...d.record, state: 'ready', engineCreatedAt: facts.createdAt, message: '', backoff: null }
    tell(d, 'Normal', 'VolumeReady', `The volume ${d.record.physicalName} is there.`)
    kickHolders(d)
    return done(d, d.record.discarded.length > 0 ? { wakeAt: d.view.now } : {})
  }
  return silentOrForeign(d, facts)
}

/**
 * One that an engine made silently under our journaled name (unlabelled, newer than our row, empty) is removed; null
 * for anything else, which is somebody's.
 */
function planSilent(d: Draft, facts: VolumeFacts): VolumeDecision | null {
  // Engines tell creation times to the second, so ours is rounded down as well.
  const newer = facts.createdAt >= Math.floor(d.record.createdAt / 1000) * 1000
  const unlabelled = facts.labels[LABEL.installation] === undefined
  if (!newer || !unlabelled) return null
  if (d.view.empty === undefined) return { ...done(d, {}), need: 'empty' }
  return d.view.empty.has(facts.name) ? removal(d, facts.name, SILENT) : null
}

/** Under our journaled name stands something without our labels. */
function silentOrForeign(d: Draft, facts: VolumeFacts): VolumeDecision {
  const silent = planSilent(d, facts)
  if (silent !== null) return silent
  if (!d.record.message.startsWith('NameCollision')) {
    tell(
      d,
      'Warning',
      'NameCollision',
      `A volume that is not ours has the name ${facts.name}; it is left alone.`,
    )
    kickHolders(d)
  }
  const message = `NameCollision: a volume that is not ours has the name ${facts.name}; it is left alone.`
  return rest(d, message, d.view.now + 30_000)
}

function planReady(d: Draft, facts: VolumeFacts | null): VolumeDecision {
  if (d.record.purge !== null || ownerIsGoing(d)) {
    const others = otherHolders(d)
    if (others.length > 0) return rest(d, `It is kept while ${others.join(', ')} mounts it.`)
    if (d.record.purge === null && !ownerIsAbsent(d))
      return rest(d, 'It goes with its sandbox, once that is gone.')
    return beginRemoval(d)
  }
  if (facts === null || !isExpectedVolume(d.record, facts, d.view.installation)) {
    d.record = { ...d.record, state: 'lost' }
    tell(
      d,
      'Warning',
      'VolumeLost',
      `The volume ${d.record.physicalName} is gone from the engine, or another stands in its place. Nothing is started on it.`,
    )
    kickHolders(d)
    return rest(d, 'It is gone from the engine, with its data. If it comes back, it is used again.')
  }
  const buried = d.view.ownerBuried || d.view.owner?.desired === 'deleted'
  return rest(d, buried ? 'Its sandbox is gone; it is kept because its retention is retain.' : '')
}

/** The purge is committed together with the check that nobody mounts it: from then on claims on it are refused. */
function beginRemoval(d: Draft): VolumeDecision {
  d.record = {
    ...d.record,
    state: 'removing',
    purge: d.record.purge ?? { by: 'owner-deleted', at: d.view.now },
    message: 'It is being removed.',
  }
  return done(d, { guardNoHolders: true, wakeAt: d.view.now })
}

function planRemoving(d: Draft, facts: VolumeFacts | null): VolumeDecision {
  if (facts !== null && isExpectedVolume(d.record, facts, d.view.installation)) {
    return removal(d, d.record.physicalName, d.record.purge?.by ?? 'purge')
  }
  const silent = facts === null ? null : planSilent(d, facts)
  if (silent !== null) return silent
  const until = openCreateUntil(d.view.open, d.view.now)
  if (until !== null) return rest(d, 'A create was under way; its outcome is waited for.', until)
  return finishRemoval(d, facts)
}

/** Ours is gone. What somebody else has put under its name since stays. */
function finishRemoval(d: Draft, facts: VolumeFacts | null): VolumeDecision {
  for (const row of d.view.open) {
    if (d.settled.every((s) => s.id !== row.id))
      d.settled.push(settledAs(row, 'abandoned', 'the volume is gone'))
  }
  const { uid, physicalName, engine, purge } = d.record
  for (const name of [physicalName, ...d.record.discarded]) {
    d.tombstones.push({ uid, kind: 'volume', name, engine, at: d.view.now })
  }
  d.record = { ...d.record, state: 'removed', removedAt: d.view.now, discarded: [], backoff: null }
  const left = facts === null ? '' : ' An object that is not ours has its name now, and is left alone.'
  tell(
    d,
    facts === null ? 'Normal' : 'Warning',
    'VolumeRemoved',
    `The volume ${physicalName} is gone (${purge?.by ?? 'purge'}).${left}`,
  )
  kickHolders(d)
  return rest(d, `It is gone.${left}`)
}

function planLost(d: Draft, facts: VolumeFacts | null): VolumeDecision {
  if ((d.record.purge !== null || (ownerIsGoing(d) && ownerIsAbsent(d))) && otherHolders(d).length === 0)
    return beginRemoval(d)
  if (facts !== null && isExpectedVolume(d.record, facts, d.view.installation)) {
    d.record = { ...d.record, state: 'ready' }
    tell(d, 'Normal', 'VolumeFound', `The volume ${d.record.physicalName} is back.`)
    kickHolders(d)
    return rest(d, '')
  }
  if (facts !== null) return silentOrForeign(d, facts)
  return rest(d, 'It is gone from the engine, with its data. If it comes back, it is used again.')
}
