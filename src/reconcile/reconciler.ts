import type { Engine, EngineEvent } from '../engines/engine.ts'
import type { EngineHealth, EngineHost } from '../engines/host.ts'
import type { Clock } from '../model/clock.ts'
import { HoldfastError } from '../model/errors.ts'
import type { Ids } from '../model/ids.ts'
import { sweepKey } from '../model/keys.ts'
import type { JournalRow } from '../model/records.ts'
import type { Store } from '../store/store.ts'
import { createBucket } from './bucket.ts'
import type { Context, Figures, Hooks, Log } from './context.ts'
import { sandboxKey, volumeKey, type Controller } from './controller.ts'
import { createExpiry } from './expiry.ts'
import { createHealthMonitor, type Change, type HealthMonitor } from './health.ts'
import { EXPIRY_TICK_MS, KEYS_AT_ONCE, RESYNC_MS, TOKEN_BURST, TOKENS_PER_SECOND } from './limits.ts'
import { createQueue, type QueueState } from './queue.ts'
import { reconcileSandbox } from './sandbox.ts'
import { sweepEngine } from './sweep.ts'
import { reconcileVolume } from './volume.ts'

export interface ReconcilerOptions {
  readonly store: Store
  readonly engines: readonly Engine[]
  readonly defaultEngine: string
  readonly clock: Clock
  readonly ids: Ids
  readonly log: Log
  readonly hooks?: Hooks
  readonly endpoint: string
  /** This control plane may no longer act; the process must end. */
  readonly fatal: (error: Error) => void
}

export interface Reconciler extends Controller, EngineHost {
  /** Observes everything once, then keeps reconciling. Resolves when the first look at everything was enqueued. */
  start(): Promise<void>
  /** Finishes the steps in hand and begins no more. */
  stop(): Promise<void>
  /** Looks at an engine as a whole now; resolves when that is done. For tests and `audit`. */
  resync(engine: string): Promise<void>
  readonly idle: boolean
  /** What waits in the queue; for tests. */
  describe(): QueueState
}

/** Retention of events, closed journal rows and finished sandboxes, ms. Tombstones stay for ever. */
const KEEP_MS = 14 * 86_400_000
const KEEP_IDEMPOTENCY_MS = 86_400_000
const PRUNE_EVERY_MS = 3_600_000
/** A pass that threw is looked at again after this, ms. */
const AFTER_THROW_MS = 2_000

/** Ties queue, passes, sweeps, health and time together. It decides nothing: the planner does. */
export function createReconciler(options: ReconcilerOptions): Reconciler {
  const { store, clock, log } = options
  const figures: Figures = { steps: new Map(), failures: 0, passes: 0 }
  const engines = new Map(options.engines.map((e) => [e.id, e]))
  const monitors = new Map<string, HealthMonitor>()
  const buckets = new Map(
    options.engines.map((e) => [e.id, createBucket(clock, TOKENS_PER_SECOND, TOKEN_BURST)]),
  )
  const running = new Map<string, { readonly step: JournalRow['step']; readonly abort: AbortController }>()
  const everything = new Set<string>()
  const stopping = new AbortController()
  const cancels: (() => void)[] = []
  const startupKeys = new Set<string>()
  /** Engines that were not listed since the start: one list tells which of their sandboxes need a closer look (DESIGN §4.10). */
  const firstSweeps = new Set(engines.keys())
  /** Engines of which no list succeeded since the start. */
  const unlisted = new Set(engines.keys())
  const surveyKeys = new Set<string>()

  const queue = createQueue({ clock, limit: KEYS_AT_ONCE, process, failed })
  const ctx: Context = {
    store,
    engines: {
      defaultId: options.defaultEngine,
      get: (id) => engines.get(id) ?? null,
      all: () => [...engines.values()],
      health,
    },
    clock,
    ids: options.ids,
    log,
    hooks: options.hooks ?? {},
    endpoint: options.endpoint,
    enqueue(key, how) {
      // What the first list shows to differ is part of the recovery.
      if (firstSweeps.size > 0 && how?.delayMs === undefined) startupKeys.add(key)
      if (unlisted.size > 0 && how?.delayMs === undefined) surveyKeys.add(key)
      queue.add(key, how)
    },
    suspect: (engine) => monitors.get(engine)?.suspect(),
    figures,
    kick,
    stopping: stopping.signal,
    token: (engine) => buckets.get(engine)?.take() ?? Promise.resolve(),
  }
  const expiry = createExpiry(ctx)

  async function process(key: string, slot: Parameters<typeof reconcileSandbox>[2]): Promise<void> {
    figures.passes++
    const [kind, ...rest] = key.split('/')
    const id = rest.join('/')
    if (kind === 'sandbox') await reconcileSandbox(ctx, id, slot, interrupts)
    else if (kind === 'volume') await reconcileVolume(ctx, id)
    else await sweep(id)
    passed(key)
  }

  function passed(key: string): void {
    startupKeys.delete(key)
    surveyKeys.delete(key)
  }

  async function sweep(id: string): Promise<void> {
    const engine = engines.get(id)
    if (engine === undefined) return
    const all = everything.has(id)
    const seen = await sweepEngine(ctx, engine, all)
    if (seen) {
      everything.delete(id)
      unlisted.delete(id)
    }
    // An engine that cannot be listed can still be asked about each sandbox, or each says Unknown.
    if (!seen && firstSweeps.has(id)) await enqueueAllRows()
    if (firstSweeps.delete(id) && firstSweeps.size === 0) ctx.hooks.looked?.()
  }

  function failed(key: string, error: unknown): void {
    if (error instanceof HoldfastError && error.code === 'FENCED') {
      options.fatal(error)
      return
    }
    passed(key)
    log.error(
      { key, error: error instanceof Error ? (error.stack ?? error.message) : String(error) },
      'pass failed',
    )
    queue.add(key, { background: true, delayMs: AFTER_THROW_MS })
  }

  const interrupts = {
    set: (key: string, step: { readonly step: JournalRow['step']; readonly abort: AbortController }) =>
      void running.set(key, step),
    clear: (key: string) => void running.delete(key),
  }

  function kick(key: string): void {
    queue.add(key)
    interrupt(key).catch((error: unknown) => failed(key, error))
  }

  /** Ends a pull or a stop's grace that a newer wish made pointless. */
  async function interrupt(key: string): Promise<void> {
    const now = running.get(key)
    if (now === undefined || !key.startsWith('sandbox/')) return
    if (now.step.kind !== 'pull-image' && now.step.kind !== 'stop-instance') return
    const record = await store.read((tx) => tx.sandbox(key.slice('sandbox/'.length)))
    if (record === null) return
    const pointless =
      now.step.kind === 'pull-image'
        ? record.desired !== 'running' || record.spec.image !== now.step.image
        : record.desired === 'deleted' && now.step.why !== 'delete'
    if (pointless) now.abort.abort(new Error('no longer wanted'))
  }

  function health(id: string): EngineHealth {
    return monitors.get(id)?.health() ?? { ok: false, error: 'not configured', since: 0 }
  }

  function watchHealth(engine: Engine): void {
    const monitor = createHealthMonitor({
      engine,
      clock,
      changed: (what, detail) => {
        log.info({ engine: engine.id, what, detail }, 'engine')
        void tellEngine(engine.id, what, detail)
        if (what === 'away') {
          showUnknown(engine.id).catch((error: unknown) => failed(sweepKey(engine.id), error))
          return
        }
        // The start-up itself has enqueued everything.
        if (what === 'first') return
        everything.add(engine.id)
        queue.add(sweepKey(engine.id))
      },
    })
    monitors.set(engine.id, monitor)
  }

  /** What cannot be asked is not Running any more to anybody's knowledge: each sandbox says so. */
  async function showUnknown(id: string): Promise<void> {
    const { items } = await store.read((tx) => tx.sandboxes({ engine: id }))
    for (const record of items) queue.add(sandboxKey(record.id), { background: true })
  }

  async function tellEngine(id: string, what: Change, detail: string): Promise<void> {
    const reason = {
      first: 'EngineReachable',
      back: 'EngineReachable',
      away: 'EngineUnreachable',
      restarted: 'EngineRestarted',
    }[what]
    const type = what === 'back' || what === 'first' ? 'Normal' : 'Warning'
    try {
      await store.write(false, (tx) =>
        tx.appendEvent(
          { subject: 'engine', id, type, reason, message: `The engine ${id}: ${detail}.` },
          clock.now(),
        ),
      )
      ctx.hooks.committed?.()
    } catch (error) {
      failed(sweepKey(id), error)
    }
  }

  async function follow(engine: Engine): Promise<void> {
    for await (const event of engine.events(stopping.signal)) {
      try {
        await hint(engine, event)
      } catch (error) {
        // One event that cannot be looked up (a damaged row) must not end the stream for all.
        failed(sweepKey(engine.id), error)
      }
    }
  }

  async function hint(engine: Engine, event: EngineEvent): Promise<void> {
    if (event.kind === 'resync') queue.add(sweepKey(engine.id), { background: true })
    else if (event.kind === 'instance') {
      const id = /^hf-([a-z0-9]{16})-\d+$/.exec(event.name)?.[1]
      if (id !== undefined) queue.add(sandboxKey(id))
    } else {
      const row = await store.read((tx) => tx.volumeByPhysicalName(engine.id, event.name))
      if (row !== null) queue.add(volumeKey(row.uid), { background: true })
    }
  }

  /** Runs `fn` every `ms` from the end of the former run; a failure is logged and does not end it. */
  function every(ms: number, name: string, fn: () => Promise<void>): void {
    let cancel = clock.after(ms, tick)
    cancels.push(() => cancel())
    function tick(): void {
      fn()
        .catch((error: unknown) => {
          if (error instanceof HoldfastError && error.code === 'FENCED') options.fatal(error)
          else
            log.error(
              { task: name, error: error instanceof Error ? error.message : String(error) },
              'periodic task failed',
            )
        })
        .finally(() => {
          if (!stopping.signal.aborted) cancel = clock.after(ms, tick)
        })
        .catch(() => undefined) // both handlers above are total
    }
  }

  async function start(): Promise<void> {
    for (const row of await store.read((tx) => tx.openSteps())) ctx.enqueue(row.key)
    for (const engine of engines.values()) {
      watchHealth(engine)
      ctx.enqueue(sweepKey(engine.id))
      follow(engine).catch((error: unknown) => {
        if (!stopping.signal.aborted)
          log.error({ engine: engine.id, error: String(error) }, 'event stream ended; the full list goes on')
      })
    }
    await expiry.tick()
    every(EXPIRY_TICK_MS, 'expiry', () => expiry.tick())
    every(RESYNC_MS, 'resync', async () => {
      for (const id of engines.keys()) queue.add(sweepKey(id), { background: true })
    })
    every(PRUNE_EVERY_MS, 'prune', async () => {
      const now = clock.now()
      const pruneOnce = (): Promise<number> =>
        store.write(false, (tx) =>
          tx.prune({
            events: now - KEEP_MS,
            journal: now - KEEP_MS,
            idempotency: now - KEEP_IDEMPOTENCY_MS,
            sandboxes: now - KEEP_MS,
          }),
        )
      // It takes a bounded number at a time, so that writers need not wait for it.
      while ((await pruneOnce()) > 0 && !stopping.signal.aborted);
    })
  }

  async function enqueueAllRows(): Promise<void> {
    const rows = await store.read(async (tx) => ({
      s: (await tx.sandboxes({})).items,
      v: (await tx.volumes({})).items,
    }))
    for (const r of rows.s) startupKeys.add(sandboxKey(r.id))
    for (const v of rows.v)
      if (v.state !== 'ready' || v.discarded.length > 0 || v.purge !== null) startupKeys.add(volumeKey(v.uid))
    for (const key of startupKeys) queue.add(key)
  }

  return {
    defaultId: options.defaultEngine,
    get: (id) => engines.get(id) ?? null,
    all: () => [...engines.values()],
    health,
    kick,
    settled: (key, limitMs) => queue.settled(key, limitMs),
    get recovered() {
      return firstSweeps.size === 0 && startupKeys.size === 0
    },
    get surveyed() {
      return unlisted.size === 0 && surveyKeys.size === 0
    },
    get idle() {
      return queue.idle
    },
    stats: () => ({
      queued: queue.queued,
      running: queue.running,
      steps: Object.fromEntries(figures.steps),
      failures: figures.failures,
      passes: figures.passes,
    }),
    describe: () => queue.describe(),
    async resync(id) {
      const done = queue.settled(sweepKey(id), 60_000)
      everything.add(id)
      queue.add(sweepKey(id))
      await done
    },
    start,
    async stop() {
      stopping.abort(new Error('stopping'))
      // A pull can take half an hour, and is begun anew by the next start.
      for (const { step, abort } of running.values())
        if (step.kind === 'pull-image') abort.abort(new Error('stopping'))
      for (const c of cancels) c()
      for (const m of monitors.values()) m.stop()
      await queue.stop()
    },
  }
}
