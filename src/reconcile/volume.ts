import type { VolumeFacts } from '../model/facts.ts'
import type { Hold } from '../model/hold.ts'
import type { JournalRow, SandboxRecord, VolumeRecord } from '../model/records.ts'
import { afterVolumeFailure } from '../plan/failure.ts'
import { stepLimitMs } from '../plan/limits.ts'
import type { VolumeDecision, VolumeView } from '../plan/types.ts'
import { planVolume } from '../plan/volume.ts'
import type { ReadTx } from '../store/store.ts'
import type { Engine } from '../engines/engine.ts'
import type { Context } from './context.ts'
import { sandboxKey, volumeKey } from './controller.ts'
import { takeStep } from './journal.ts'
import { AFTER_MANY_STEPS_MS, OBSERVE_LIMIT_MS, STEPS_PER_PASS, UNKNOWN_RETRY_MS } from './limits.ts'
import { Conflict, doubt, same } from './sandbox.ts'

interface Loaded {
  readonly record: VolumeRecord
  readonly owner: SandboxRecord | null
  readonly ownerBuried: boolean
  readonly ownerOpen: readonly JournalRow[]
  readonly holders: readonly SandboxRecord[]
  readonly open: readonly JournalRow[]
  readonly hold: Hold | null
}

/** One pass over a volume; the same loop as for a sandbox. */
export async function reconcileVolume(ctx: Context, uid: string): Promise<void> {
  const key = volumeKey(uid)
  for (let turn = 0; turn < STEPS_PER_PASS && !ctx.stopping.aborted; turn++) {
    const loaded = await ctx.store.read((tx) => load(tx, uid))
    if (loaded === null || loaded.record.state === 'removed') return
    const engine = ctx.engines.get(loaded.record.engine)
    const observed = await observe(ctx, engine, loaded)
    const decision = await decide(ctx, engine, loaded, observed)
    if (decision.step !== null) await ctx.token(loaded.record.engine)
    const committed = await commit(ctx, key, loaded, decision)
    if (!committed.ok) continue
    if (committed.row === null) {
      for (const k of decision.kicks) ctx.enqueue(k)
      const now = ctx.clock.now()
      if (decision.wakeAt !== null && decision.wakeAt <= now) continue
      if (decision.wakeAt !== null) ctx.enqueue(key, { background: true, delayMs: decision.wakeAt - now })
      else if (!observed.known) ctx.enqueue(key, { background: true, delayMs: UNKNOWN_RETRY_MS })
      return
    }
    if (engine === null) return
    const earlier = loaded.open.find((r) => r.id === committed.row?.id)
    await perform(ctx, engine, committed.row, decision.record, earlier?.deadlineAt ?? null)
    for (const k of decision.kicks) ctx.enqueue(k)
  }
  ctx.enqueue(key, { background: true, delayMs: AFTER_MANY_STEPS_MS })
}

async function load(tx: ReadTx, uid: string): Promise<Loaded | null> {
  const record = await tx.volume(uid)
  if (record === null) return null
  const owner = record.owner === null ? null : await tx.sandbox(record.owner)
  const buried =
    owner?.deletedAt != null ||
    (owner === null && record.owner !== null && (await tx.tombstone(record.owner)) !== null)
  return {
    record,
    owner,
    ownerBuried: buried,
    ownerOpen: record.owner === null ? [] : await tx.openSteps(sandboxKey(record.owner)),
    holders: await tx.holdersOf(uid),
    open: await tx.openSteps(volumeKey(uid)),
    hold: await tx.hold(),
  }
}

async function observe(ctx: Context, engine: Engine | null, loaded: Loaded): Promise<VolumeView['observed']> {
  const { record } = loaded
  if (engine === null)
    return { known: false, error: `the engine ${record.engine} is not configured`, since: ctx.clock.now() }
  try {
    const seen = new Map<string, VolumeFacts | null>()
    for (const name of [record.physicalName, ...record.discarded]) {
      seen.set(name, await engine.inspectVolume(name, { limitMs: OBSERVE_LIMIT_MS }))
    }
    return { known: true, value: seen, at: ctx.clock.now() }
  } catch (error) {
    return doubt(ctx, record.engine, error)
  }
}

async function decide(
  ctx: Context,
  engine: Engine | null,
  loaded: Loaded,
  observed: VolumeView['observed'],
): Promise<VolumeDecision> {
  const view: VolumeView = {
    installation: ctx.store.installation,
    ...loaded,
    observed,
    empty: undefined,
    now: ctx.clock.now(),
  }
  const decision = planVolume(view)
  if (decision.need === undefined || engine === null) return decision
  try {
    const isEmpty = await engine.volumeIsEmpty(loaded.record.physicalName, { limitMs: OBSERVE_LIMIT_MS })
    return planVolume({ ...view, empty: new Set(isEmpty ? [loaded.record.physicalName] : []) })
  } catch (error) {
    return planVolume({ ...view, observed: doubt(ctx, loaded.record.engine, error) })
  }
}

type Committed = { readonly ok: true; readonly row: JournalRow | null } | { readonly ok: false }

async function commit(ctx: Context, key: string, loaded: Loaded, d: VolumeDecision): Promise<Committed> {
  const changed = !same(loaded.record, d.record)
  if (!changed && d.settled.length + d.tombstones.length + d.events.length === 0 && d.step === null)
    return { ok: true, row: null }
  if (d.step !== null) ctx.hooks.point?.(d.step.kind, 'before-intent')
  try {
    const row = await ctx.store.write(true, async (tx) => {
      const now = ctx.clock.now()
      // The mount check and the purge are one transaction: a sandbox that claims the volume in between wins.
      if (d.guardNoHolders) {
        const others = (await tx.holdersOf(d.record.uid)).filter(
          (h) => h.id !== d.record.owner || h.desired !== 'deleted',
        )
        if (others.length > 0) throw new Conflict()
      }
      // Also a decision that leaves the row as it is was made from it.
      const fresh = changed
        ? await tx.updateVolume(d.record)
        : (await tx.volume(d.record.uid))?.version === loaded.record.version
      if (!fresh) throw new Conflict()
      for (const s of d.settled) await tx.closeStep(s.id, s.state, now, s.outcome)
      for (const t of d.tombstones) await tx.putTombstone(t)
      for (const e of d.events) await tx.appendEvent(e, now)
      if (d.step === null) return null
      const deadlineAt = now + stepLimitMs(d.step)
      if (d.retryOf !== null) return tx.retryStep(d.retryOf, now, deadlineAt)
      return tx.openStep({ key, engine: d.record.engine, step: d.step, generation: 0, at: now, deadlineAt })
    })
    if (d.events.length > 0) ctx.hooks.committed?.()
    return { ok: true, row }
  } catch (error) {
    if (error instanceof Conflict) return { ok: false }
    throw error
  }
}

async function perform(
  ctx: Context,
  engine: Engine,
  row: JournalRow,
  record: VolumeRecord,
  earlierUntil: number | null,
): Promise<void> {
  await takeStep(ctx, row, {
    engine,
    sandbox: null,
    volumes: [record],
    earlierUntil,
    record: async (tx, result) => {
      const fresh = await tx.volume(record.uid)
      if (fresh === null) return
      const now = ctx.clock.now()
      const next = result.ok
        ? { ...fresh, backoff: null }
        : afterVolumeFailure(fresh, result.failure, now, ctx.ids.random())
      if (!same(fresh, next) && !(await tx.updateVolume(next))) throw new Conflict()
      if (!result.ok && fresh.backoff?.error !== result.failure.message) {
        const message = `${row.step.kind} failed: ${result.failure.message}`
        await tx.appendEvent(
          { subject: 'volume', id: record.uid, type: 'Warning', reason: 'StepFailed', message },
          now,
        )
      }
    },
  })
}
