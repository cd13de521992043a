import type { Engine } from '../engines/engine.ts'
import type { InstanceFacts, VolumeFacts } from '../model/facts.ts'
import type { Hold } from '../model/hold.ts'
import { HoldfastError } from '../model/errors.ts'
import { sweepKey } from '../model/keys.ts'
import { LABEL } from '../model/labels.ts'
import type { JournalRow, SandboxRecord, Step, VolumeRecord } from '../model/records.ts'
import { stepLimitMs } from '../plan/limits.ts'
import { heldVolumeNeedsPass, mayRemove } from '../plan/hold.ts'
import { sandboxNeedsPass, volumeNeedsPass } from '../plan/resync.ts'
import { isTwin, judge, type KnownObject } from '../plan/sweep.ts'
import { SILENT, SILENT_SEEDED } from '../plan/volume.ts'
import type { ReadTx } from '../store/store.ts'
import type { Context } from './context.ts'
import { sandboxKey, volumeKey } from './controller.ts'
import { takeStep } from './journal.ts'
import { LIST_LIMIT_MS, OBSERVE_LIMIT_MS } from './limits.ts'

interface Rows {
  readonly hold: Hold | null
  readonly sandboxes: readonly SandboxRecord[]
  readonly volumes: readonly VolumeRecord[]
}

/**
 * A full look at one engine: keys whose facts differ from what is wanted are enqueued, remnants of finished deletes
 * are removed, and what nobody knows is quarantined. A list that failed leads to nothing at all, and to `false`.
 */
export async function sweepEngine(ctx: Context, engine: Engine, everything: boolean): Promise<boolean> {
  let instances: readonly InstanceFacts[]
  let volumes: readonly VolumeFacts[]
  try {
    instances = await engine.listInstances({ limitMs: LIST_LIMIT_MS })
    volumes = await engine.listVolumes({ limitMs: LIST_LIMIT_MS })
  } catch (error) {
    ctx.suspect(engine.id, error instanceof Error ? error.message : String(error))
    return false
  }
  const rows: Rows = await ctx.store.read(async (tx) => ({
    hold: await tx.hold(),
    sandboxes: (await tx.sandboxes({ engine: engine.id })).items,
    volumes: (await tx.volumes({ engine: engine.id })).items,
  }))
  enqueueChanged(ctx, rows, instances, volumes, everything)
  await settleOwnSteps(ctx, engine, instances, volumes)
  const ours = (o: InstanceFacts | VolumeFacts): boolean =>
    o.labels[LABEL.installation] === ctx.store.installation
  for (const facts of instances.filter(ours))
    await alone(ctx, facts.name, () => judgeInstance(ctx, engine, rows.hold, facts, volumes))
  for (const facts of volumes.filter(ours))
    await alone(ctx, facts.name, () => judgeVolume(ctx, engine, rows.hold, facts))
  if (mayRemove(rows.hold)) await removeSilent(ctx, engine, volumes)
  await dropSettledQuarantine(ctx, engine, instances, volumes)
  return true
}

/** One object whose row cannot be read is left as it is, and keeps no other from being looked at. */
async function alone(ctx: Context, name: string, judgeOne: () => Promise<void>): Promise<void> {
  try {
    await judgeOne()
  } catch (error) {
    if (error instanceof HoldfastError && error.code === 'FENCED') throw error
    ctx.log.error(
      { object: name, error: error instanceof Error ? error.message : String(error) },
      'not judged',
    )
  }
}

function enqueueChanged(
  ctx: Context,
  rows: Rows,
  instances: readonly InstanceFacts[],
  volumes: readonly VolumeFacts[],
  everything: boolean,
): void {
  const byName = new Map(instances.map((i) => [i.name, i]))
  const volumeByName = new Map(volumes.map((v) => [v.name, v]))
  const going = new Set<string>()
  const { installation } = ctx.store
  for (const record of rows.sandboxes) {
    if (record.desired === 'deleted') going.add(record.id)
    const facts = record.instance === null ? null : (byName.get(record.instance.name) ?? null)
    if (everything || sandboxNeedsPass(record, facts, installation))
      ctx.enqueue(sandboxKey(record.id), { background: true })
  }
  const live = new Set(rows.sandboxes.map((r) => r.id))
  for (const v of rows.volumes) {
    const ownerGoing = v.owner !== null && (going.has(v.owner) || !live.has(v.owner))
    if (
      everything ||
      heldVolumeNeedsPass(v, rows.hold) ||
      volumeNeedsPass(v, volumeByName.get(v.physicalName) ?? null, installation, ownerGoing)
    ) {
      ctx.enqueue(volumeKey(v.uid), { background: true })
    }
  }
}

async function knownTo(
  tx: ReadTx,
  engine: string,
  facts: InstanceFacts | VolumeFacts,
  kind: 'instance' | 'volume',
): Promise<KnownObject> {
  const uid = facts.labels[LABEL.uid] ?? ''
  const tombstone = (await tx.tombstone(uid)) !== null
  if (kind === 'volume') {
    const row = await tx.volume(uid)
    const live = row !== null && row.state !== 'removed'
    const named = live && (row.physicalName === facts.name || row.discarded.includes(facts.name))
    const buried = (await tx.tombstoneByName(engine, 'volume', facts.name)) !== null
    // A former make of a volume that lives on, and that nobody discarded, may hold data: it is for a person to look at.
    return { row: named, tombstone: buried || (!live && tombstone) }
  }
  const ref = (await tx.sandbox(facts.labels[LABEL.sandbox] ?? ''))?.instance
  const named = ref?.uid === uid && ref.name === facts.name
  if (named && 'state' in facts && isTwin(ref, facts)) return { row: false, tombstone: true }
  return { row: named, tombstone }
}

async function judgeInstance(
  ctx: Context,
  engine: Engine,
  hold: Hold | null,
  facts: InstanceFacts,
  volumes: readonly VolumeFacts[],
): Promise<void> {
  const known = await ctx.store.read((tx) => knownTo(tx, engine.id, facts, 'instance'))
  const verdict = judge(facts, ctx.store.installation, () => known, hold)
  if (verdict.kind === 'remnant') {
    const step: Step = {
      kind: 'remove-instance',
      name: facts.name,
      uid: facts.labels[LABEL.uid] ?? '',
      engineId: facts.id,
      why: 'remnant of a finished delete',
    }
    // Noted before the instance goes, which is what proves that nothing but the image's content is in them.
    const seeded = await silentlySeeded(ctx, engine, facts, volumes)
    for (const volume of seeded) await openSweepStep(ctx, engine, volume)
    await sweepStep(ctx, engine, step)
    for (const volume of seeded) await sweepStep(ctx, engine, volume)
  } else if (verdict.kind === 'quarantine') {
    await quarantine(ctx, engine, 'instance', facts.name, facts.id)
  }
}

/** Volumes that a create of ours made again when it landed late: under buried names, unlabelled, and never run on. */
async function silentlySeeded(
  ctx: Context,
  engine: Engine,
  instance: InstanceFacts,
  volumes: readonly VolumeFacts[],
): Promise<Step[]> {
  if (instance.startedAt !== null || instance.state === 'running') return []
  const steps: Step[] = []
  for (const { name, labels } of volumes) {
    if (Object.keys(labels).length > 0 || instance.mounts.every((m) => m.volume !== name)) continue
    const tombstone = await ctx.store.read((tx) => tx.tombstoneByName(engine.id, 'volume', name))
    if (tombstone !== null)
      steps.push({ kind: 'remove-volume', uid: tombstone.uid, name, why: SILENT_SEEDED })
  }
  return steps
}

async function judgeVolume(
  ctx: Context,
  engine: Engine,
  hold: Hold | null,
  facts: VolumeFacts,
): Promise<void> {
  const known = await ctx.store.read((tx) => knownTo(tx, engine.id, facts, 'volume'))
  const verdict = judge(facts, ctx.store.installation, () => known, hold)
  if (verdict.kind === 'remnant') {
    const step: Step = {
      kind: 'remove-volume',
      uid: facts.labels[LABEL.uid] ?? '',
      name: facts.name,
      why: 'remnant of a finished delete',
    }
    await sweepStep(ctx, engine, step)
  } else if (verdict.kind === 'quarantine') {
    await quarantine(ctx, engine, 'volume', facts.name, facts.name)
  }
}

/** A late create can make the engine make a removed volume again, unlabelled: known by its name's tombstone, and only if empty. */
async function removeSilent(ctx: Context, engine: Engine, volumes: readonly VolumeFacts[]): Promise<void> {
  for (const facts of volumes) {
    if (Object.keys(facts.labels).length > 0) continue
    const tombstone = await ctx.store.read((tx) => tx.tombstoneByName(engine.id, 'volume', facts.name))
    if (tombstone === null) continue
    const noted = (await ctx.store.read((tx) => openSweepSteps(tx, engine.id))).find(
      (r) => r.step.kind === 'remove-volume' && r.step.name === facts.name && r.step.why === SILENT_SEEDED,
    )
    if (noted !== undefined) {
      await sweepStep(ctx, engine, noted.step)
      continue
    }
    try {
      if (!(await engine.volumeIsEmpty(facts.name, { limitMs: OBSERVE_LIMIT_MS }))) {
        await quarantine(ctx, engine, 'volume', facts.name, facts.name)
        continue
      }
    } catch (error) {
      ctx.suspect(engine.id, error instanceof Error ? error.message : String(error))
      return
    }
    await sweepStep(ctx, engine, { kind: 'remove-volume', uid: tombstone.uid, name: facts.name, why: SILENT })
  }
}

/**
 * The sweep's own open rows that can be read. One that cannot is left out, as it would otherwise end every sweep: what
 * it stands for is a removal, which looks again before it acts and may be journaled twice.
 */
async function openSweepSteps(tx: ReadTx, engine: string): Promise<readonly JournalRow[]> {
  return (await tx.openSteps()).filter((row) => row.key === sweepKey(engine))
}

/** Journals and takes one removal of the sweep; it was judged from a list, so the step looks again before it acts. */
async function sweepStep(ctx: Context, engine: Engine, step: Step): Promise<void> {
  await ctx.token(engine.id)
  const row = await openSweepStep(ctx, engine, step)
  await takeSweepStep(ctx, engine, row)
}

/** The intent of a removal; a retry of one that is open keeps its row. */
function openSweepStep(ctx: Context, engine: Engine, step: Step): Promise<JournalRow> {
  const key = sweepKey(engine.id)
  ctx.hooks.point?.(step.kind, 'before-intent')
  return ctx.store.write(true, async (tx) => {
    const now = ctx.clock.now()
    const deadlineAt = now + stepLimitMs(step)
    const open = (await openSweepSteps(tx, engine.id)).find(
      (r) => r.step.kind === step.kind && 'name' in r.step && 'name' in step && r.step.name === step.name,
    )
    if (open !== undefined) return tx.retryStep(open.id, now, deadlineAt)
    return tx.openStep({ key, engine: engine.id, step, generation: 0, at: now, deadlineAt })
  })
}

async function takeSweepStep(ctx: Context, engine: Engine, row: JournalRow): Promise<void> {
  const { step } = row
  await takeStep(ctx, row, {
    engine,
    sandbox: null,
    volumes: [],
    // A removal that lands late finds nothing to do: the object is gone, and its id or name is never used again.
    earlierUntil: null,
    record: async (tx, result) => {
      if (!result.ok || result.outcome.text !== 'removed' || !('name' in step)) return
      await tx.appendEvent(
        {
          subject: 'engine',
          id: engine.id,
          type: 'Warning',
          reason: 'RemnantRemoved',
          message: `${step.name}: ${'why' in step ? step.why : step.kind}.`,
        },
        ctx.clock.now(),
      )
    },
  })
}

/** Closes the sweep's own open rows whose object is gone from the whole list. */
async function settleOwnSteps(
  ctx: Context,
  engine: Engine,
  instances: readonly InstanceFacts[],
  volumes: readonly VolumeFacts[],
): Promise<void> {
  const open = await ctx.store.read((tx) => openSweepSteps(tx, engine.id))
  const gone = open.filter((r) => {
    if (r.step.kind === 'remove-instance') {
      const { engineId } = r.step
      return instances.every((i) => i.id !== engineId)
    }
    if (r.step.kind === 'remove-volume') {
      const { name } = r.step
      return volumes.every((v) => v.name !== name)
    }
    return false
  })
  if (gone.length === 0) return
  await ctx.store.write(true, async (tx) => {
    for (const row of gone) await tx.closeStep(row.id, 'done', ctx.clock.now(), 'seen')
  })
}

async function quarantine(
  ctx: Context,
  engine: Engine,
  kind: 'instance' | 'volume',
  name: string,
  engineId: string,
): Promise<void> {
  await ctx.store.write(false, async (tx) => {
    const now = ctx.clock.now()
    const present = (await tx.quarantine(engine.id)).find((q) => q.kind === kind && q.name === name)
    // A row that is touched each half minute would keep an idle installation writing.
    if (present !== undefined && now - present.lastSeenAt < 3_600_000) return
    const detail =
      'It carries this installation, and no row knows its uid. It is kept until a person decides.'
    await tx.putQuarantine({
      engine: engine.id,
      kind,
      name,
      engineId,
      firstSeenAt: present?.firstSeenAt ?? now,
      lastSeenAt: now,
      detail,
    })
    if (present === undefined) {
      await tx.appendEvent(
        {
          subject: 'engine',
          id: engine.id,
          type: 'Warning',
          reason: 'Quarantined',
          message: `${kind} ${name}: ${detail}`,
        },
        now,
      )
    }
  })
}

async function dropSettledQuarantine(
  ctx: Context,
  engine: Engine,
  instances: readonly InstanceFacts[],
  volumes: readonly VolumeFacts[],
): Promise<void> {
  const rows = await ctx.store.read((tx) => tx.quarantine(engine.id))
  const stale = rows.filter((q) =>
    q.kind === 'instance'
      ? instances.every((i) => i.name !== q.name)
      : volumes.every((v) => v.name !== q.name),
  )
  if (stale.length === 0) return
  await ctx.store.write(false, async (tx) => {
    for (const q of stale) await tx.dropQuarantine(q.engine, q.kind, q.name)
  })
}
