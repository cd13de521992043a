import type { Engine } from '../engines/engine.ts'
import {
  EngineError,
  type ImageFacts,
  type InstanceFacts,
  type Observed,
  type VolumeFacts,
} from '../model/facts.ts'
import type { Hold } from '../model/hold.ts'
import type { InstanceRef, JournalRow, SandboxRecord, VolumeRecord } from '../model/records.ts'
import { afterSandboxFailure, mayHaveSeeded } from '../plan/failure.ts'
import { WRONG_VOLUME, WRONG_VOLUME_CODE } from '../plan/ends.ts'
import { stepLimitMs } from '../plan/limits.ts'
import { isInstanceOf } from '../model/ids.ts'
import { volumeMounts } from '../plan/mounts.ts'
import { planSandbox } from '../plan/sandbox.ts'
import type { SandboxDecision, SandboxObservation, SandboxView } from '../plan/types.ts'
import type { ReadTx, WriteTx } from '../store/store.ts'
import type { Context } from './context.ts'
import { sandboxKey } from './controller.ts'
import { takeStep, type StepResult } from './journal.ts'
import { OBSERVE_LIMIT_MS, STEPS_PER_PASS, UNKNOWN_RETRY_MS, AFTER_MANY_STEPS_MS } from './limits.ts'
import type { Slot } from './queue.ts'
import { strangersOn } from './strangers.ts'

/** Facts that a plan may ask for beyond the first look: image, exit cause, strangers. */
const FACTS_TO_ASK = 3

interface Loaded {
  readonly record: SandboxRecord
  readonly volumes: readonly VolumeRecord[]
  readonly open: readonly JournalRow[]
  readonly hold: Hold | null
  /** Instances of this sandbox that the sweep has quarantined. */
  readonly strangers: readonly string[]
}

/** Lets a new wish end a step that waits long for nothing: a pull, or a stop's grace. */
export interface Interrupts {
  set(key: string, running: { readonly step: JournalRow['step']; readonly abort: AbortController }): void
  clear(key: string): void
}

/**
 * One pass over a sandbox: load, observe, plan, journal, step, journal, and again until nothing is left to do now.
 * Every turn of the loop starts from the store and the engine, so a crash between any two lines is just another start.
 */
export async function reconcileSandbox(
  ctx: Context,
  id: string,
  slot: Slot,
  interrupts: Interrupts,
): Promise<void> {
  const key = sandboxKey(id)
  for (let turn = 0; turn < STEPS_PER_PASS && !ctx.stopping.aborted; turn++) {
    const loaded = await ctx.store.read((tx) => load(tx, id))
    if (loaded === null || loaded.record.deletedAt !== null) return
    const engine = ctx.engines.get(loaded.record.engine)
    const decision = await decide(ctx, engine, loaded)
    if (decision.step !== null) await ctx.token(loaded.record.engine)
    const committed = await commit(ctx, key, loaded, decision)
    if (!committed.ok) continue
    tellHooks(ctx, engine, loaded.record, decision)
    if (committed.row === null) {
      for (const k of decision.kicks) ctx.enqueue(k)
      if (decision.wakeAt !== null)
        ctx.enqueue(key, { background: true, delayMs: Math.max(1, decision.wakeAt - ctx.clock.now()) })
      else if (decision.record.status.phase === 'Unknown')
        ctx.enqueue(key, { background: true, delayMs: UNKNOWN_RETRY_MS })
      return
    }
    if (engine === null) return
    await perform(
      ctx,
      engine,
      key,
      committed.row,
      { ...loaded, record: decision.record },
      decision,
      slot,
      interrupts,
    )
    for (const k of decision.kicks) ctx.enqueue(k)
  }
  // So many steps in one go are no ordinary life: others first, and not at once.
  ctx.enqueue(key, { background: true, delayMs: AFTER_MANY_STEPS_MS })
}

async function load(tx: ReadTx, id: string): Promise<Loaded | null> {
  const record = await tx.sandbox(id)
  if (record === null) return null
  const volumes: VolumeRecord[] = []
  for (const m of volumeMounts(record)) {
    if (volumes.some((v) => v.uid === m.volume)) continue
    const row = await tx.volume(m.volume)
    if (row !== null) volumes.push(row)
  }
  const quarantined = await tx.quarantine(record.engine)
  return {
    record,
    volumes,
    open: await tx.openSteps(sandboxKey(id)),
    hold: await tx.hold(),
    strangers: quarantined
      .filter((q) => q.kind === 'instance' && isInstanceOf(q.name, id))
      .map((q) => q.name),
  }
}

async function decide(ctx: Context, engine: Engine | null, loaded: Loaded): Promise<SandboxDecision> {
  const [observed, early] = await Promise.all([
    observe(ctx, engine, loaded),
    imageAhead(engine, loaded.record),
  ])
  let image: ImageFacts | null | undefined = early
  let exitCause: 'external' | 'own' | null | undefined
  let strangers: readonly string[] | undefined = loaded.hold === null ? loaded.strangers : undefined
  for (let asked = 0; asked < FACTS_TO_ASK + 1; asked++) {
    const view: SandboxView = {
      installation: ctx.store.installation,
      record: loaded.record,
      volumes: loaded.volumes,
      open: loaded.open,
      observed,
      image,
      exitCause,
      canPull: engine?.capabilities.pull ?? false,
      hold: loaded.hold,
      strangers,
      now: ctx.clock.now(),
      fresh: () => ctx.ids.next(),
    }
    const decision = planSandbox(view)
    if (decision.need === undefined || engine === null) return decision
    try {
      const call = { limitMs: OBSERVE_LIMIT_MS }
      if (decision.need === 'image') image = await engine.inspectImage(loaded.record.spec.image, call)
      else if (decision.need === 'strangers') strangers = await strangersOn(ctx, engine, loaded.record)
      else if (observed.known && observed.value.instance !== null)
        exitCause = await engine.exitCause(observed.value.instance, call)
      else exitCause = null
    } catch (error) {
      return planSandbox({ ...view, observed: doubt(ctx, loaded.record.engine, error) })
    }
  }
  throw new Error('the planner asked for the same fact again and again')
}

/** The image of an instance that is to be made is asked about at once; a failure is met again when it is really needed. */
async function imageAhead(
  engine: Engine | null,
  record: SandboxRecord,
): Promise<ImageFacts | null | undefined> {
  if (engine === null || record.desired !== 'running' || record.instance?.engineId != null) return undefined
  try {
    return await engine.inspectImage(record.spec.image, { limitMs: OBSERVE_LIMIT_MS })
  } catch {
    return undefined
  }
}

async function observe(
  ctx: Context,
  engine: Engine | null,
  loaded: Loaded,
): Promise<Observed<SandboxObservation>> {
  const { record } = loaded
  if (engine === null)
    return { known: false, error: `the engine ${record.engine} is not configured`, since: ctx.clock.now() }
  const call = { limitMs: OBSERVE_LIMIT_MS }
  try {
    const volumes = new Map<string, VolumeFacts | null>()
    const lookAtVolumes = (): Promise<unknown> =>
      Promise.all(
        loaded.volumes.map(async (v) => {
          volumes.set(v.physicalName, await engine.inspectVolume(v.physicalName, call))
        }),
      )
    const inspect = record.instance === null ? Promise.resolve(null) : inspectOwn(engine, record.instance)
    // A running instance holds its volumes; they matter before the next create or start. One that is not known to run is
    // looked at together with its volumes, because the time until it runs is what its user waits for.
    const early = record.status.phase !== 'Running'
    const [instance] = await Promise.all([inspect, early ? lookAtVolumes() : null])
    if (!early && (instance === null || instance.state === 'stopped')) await lookAtVolumes()
    return { known: true, value: { instance, volumes }, at: ctx.clock.now() }
  } catch (error) {
    return doubt(ctx, record.engine, error)
  }
}

/** By name, and by id when the name gives nothing: a renamed instance is not an absent one. */
async function inspectOwn(engine: Engine, ref: InstanceRef): Promise<InstanceFacts | null> {
  const call = { limitMs: OBSERVE_LIMIT_MS }
  const named = await engine.inspectInstance(ref.name, call)
  if (named !== null || ref.engineId === null) return named
  return engine.inspectInstance(ref.engineId, call)
}

/** An observation that failed is a value: unknown, which leads to no step. */
export function doubt(
  ctx: Context,
  engine: string,
  error: unknown,
): { readonly known: false; readonly error: string; readonly since: number } {
  const message = error instanceof Error ? error.message : String(error)
  if (!(error instanceof EngineError))
    ctx.log.error({ engine, error: message }, 'observation failed unexpectedly')
  ctx.suspect(engine, message)
  return { known: false, error: message, since: ctx.clock.now() }
}

type Committed = { readonly ok: true; readonly row: JournalRow | null } | { readonly ok: false }

/** One transaction: the record, its volumes, settled rows, tombstones, events, and the intent of the step. */
async function commit(ctx: Context, key: string, loaded: Loaded, d: SandboxDecision): Promise<Committed> {
  const recordChanged = !same(loaded.record, d.record)
  const nothing =
    !recordChanged &&
    d.newVolumes.length +
      d.changedVolumes.length +
      d.settled.length +
      d.tombstones.length +
      d.events.length ===
      0 &&
    d.step === null
  if (nothing) return { ok: true, row: null }
  if (d.step !== null) ctx.hooks.point?.(d.step.kind, 'before-intent')
  const onlyStatus =
    d.step === null &&
    d.tombstones.length + d.newVolumes.length + d.settled.length === 0 &&
    d.record.generation === loaded.record.generation
  try {
    const row = await ctx.store.write(!onlyStatus, async (tx) => {
      const now = ctx.clock.now()
      // Also a decision that leaves the row as it is was made from it: a retry must not outrun a wish that came since.
      const fresh = recordChanged
        ? await tx.updateSandbox({ ...d.record, updatedAt: now })
        : (await tx.sandbox(d.record.id))?.version === loaded.record.version
      if (!fresh) throw new Conflict()
      for (const v of d.newVolumes) await tx.insertVolume(v)
      for (const v of d.changedVolumes) if (!(await tx.updateVolume(v))) throw new Conflict()
      for (const s of d.settled) await tx.closeStep(s.id, s.state, now, s.outcome)
      for (const t of d.tombstones) await tx.putTombstone(t)
      for (const e of d.events) await tx.appendEvent(e, now)
      return openOrRetry(tx, key, d, now)
    })
    if (d.events.length > 0) ctx.hooks.committed?.()
    return { ok: true, row }
  } catch (error) {
    if (error instanceof Conflict) return { ok: false }
    throw error
  }
}

async function openOrRetry(
  tx: WriteTx,
  key: string,
  d: SandboxDecision,
  now: number,
): Promise<JournalRow | null> {
  if (d.step === null) return null
  const deadlineAt = now + stepLimitMs(d.step)
  if (d.retryOf !== null) return tx.retryStep(d.retryOf, now, deadlineAt)
  return tx.openStep({
    key,
    engine: d.record.engine,
    step: d.step,
    generation: d.record.generation,
    at: now,
    deadlineAt,
  })
}

/** The row moved on while we decided: nothing was written, and the next turn starts afresh. */
export class Conflict extends Error {
  constructor() {
    super('the row has moved on')
    this.name = 'Conflict'
  }
}

export function same(a: object, b: object): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b)
}

async function perform(
  ctx: Context,
  engine: Engine,
  key: string,
  row: JournalRow,
  loaded: Loaded,
  decision: SandboxDecision,
  slot: Slot,
  interrupts: Interrupts,
): Promise<void> {
  const abort = new AbortController()
  const volumes = loaded.volumes.map((v) => decision.changedVolumes.find((c) => c.uid === v.uid) ?? v)
  const slow = row.step.kind === 'pull-image' || row.step.kind === 'stop-instance'
  interrupts.set(key, { step: row.step, abort })
  try {
    const run = (): Promise<StepResult> =>
      takeStep(ctx, row, {
        engine,
        sandbox: loaded.record,
        volumes,
        earlierUntil: loaded.open.find((r) => r.id === row.id)?.deadlineAt ?? null,
        signal: abort.signal,
        progress: (line) => ctx.log.debug({ key, line }, 'pull'),
        record: (tx, result) => recordOutcome(ctx, tx, loaded.record.id, row, result),
      })
    await (slow ? slot.outside(run) : run())
  } finally {
    interrupts.clear(key)
  }
}

/** What the outcome changes in the rows, in the transaction that closes the journal row. */
async function recordOutcome(
  ctx: Context,
  tx: WriteTx,
  id: string,
  row: JournalRow,
  result: StepResult,
): Promise<void> {
  const record = await tx.sandbox(id)
  if (record === null) return
  const next = result.ok
    ? afterSuccess(record, row, result.outcome.engineId, ctx.clock.now())
    : afterSandboxFailure(record, row.step, result.failure, ctx.clock.now(), ctx.ids.random())
  if (!same(record, next) && !(await tx.updateSandbox({ ...next, updatedAt: ctx.clock.now() })))
    throw new Conflict()
  if (row.step.kind === 'create-instance') await recordSeeds(tx, record, result)
  if (row.step.kind === 'remove-instance' && result.ok) {
    const { uid, name } = row.step
    await tx.putTombstone({ uid, kind: 'instance', name, engine: row.engine, at: ctx.clock.now() })
  }
  if (!result.ok && result.failure.kind !== 'aborted' && result.failure.kind !== 'fenced') {
    const message = `${row.step.kind} failed: ${result.failure.message}`
    // The same failure again says nothing new; its count is in the status.
    if (record.backoff?.error !== result.failure.message) {
      await tx.appendEvent(
        { subject: 'sandbox', id, type: 'Warning', reason: 'StepFailed', message },
        ctx.clock.now(),
      )
    }
  }
}

function afterSuccess(
  record: SandboxRecord,
  row: JournalRow,
  engineId: string | undefined,
  now: number,
): SandboxRecord {
  const ref = record.instance
  const step = row.step
  // Only a start proves that the mounts come out right: until then creates and removals must not become a loop.
  const keepsBackoff =
    (step.kind === 'remove-instance' && step.why === WRONG_VOLUME) ||
    (step.kind === 'create-instance' && record.backoff?.code === WRONG_VOLUME_CODE)
  const clean = keepsBackoff ? record : { ...record, backoff: null }
  if (ref === null || !('uid' in step) || step.uid !== ref.uid) return clean
  if (step.kind === 'create-instance' && engineId !== undefined)
    return { ...clean, instance: { ...ref, engineId } }
  // The engine says that it is gone: our own removal is no loss. A lost reply is settled by the planner in the same way.
  if (step.kind === 'remove-instance') return { ...clean, instance: null }
  if (step.kind === 'stop-instance' && ref.startedAt !== null) {
    const lastExit = {
      instance: ref.number,
      startedAt: ref.startedAt,
      finishedAt: now,
      code: null,
      class: 'asked',
    } as const
    return { ...clean, lastExit: { ...lastExit, seenAt: now } }
  }
  return clean
}

async function recordSeeds(tx: WriteTx, record: SandboxRecord, result: StepResult): Promise<void> {
  for (const m of volumeMounts(record)) {
    const v = await tx.volume(m.volume)
    if (v === null || v.seed !== 'seeding') continue
    if (result.ok) await tx.updateVolume({ ...v, seed: 'seeded' })
    else if (!mayHaveSeeded(result.failure)) await tx.updateVolume({ ...v, seed: 'pending' })
  }
}

function tellHooks(ctx: Context, engine: Engine | null, before: SandboxRecord, d: SandboxDecision): void {
  const now = d.record
  if (
    engine !== null &&
    now.status.phase === 'Running' &&
    (before.status.phase !== 'Running' || before.instance?.startedAt !== now.instance?.startedAt)
  ) {
    ctx.hooks.instanceUp?.(now, engine)
  }
  const was = before.instance?.engineId
  const ends =
    d.step?.kind === 'stop-instance' ||
    d.step?.kind === 'remove-instance' ||
    (now.status.phase !== 'Running' && before.status.phase === 'Running')
  if (was !== null && was !== undefined && ends && now.status.phase !== 'Unknown')
    ctx.hooks.instanceDown?.(was)
}
