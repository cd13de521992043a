import { createBehind, type Behind } from '../../src/engines/simulated/behind.ts'
import { createSimulatedEngine, type SimulatedEngine } from '../../src/engines/simulated/engine.ts'
import { type CallName, type Fault, MUTATIONS, OK } from '../../src/engines/simulated/faults.ts'
import { createWorld, type ImageDraft, type World } from '../../src/engines/simulated/world.ts'
import type { Engine } from '../../src/engines/engine.ts'
import type { Clock } from '../../src/model/clock.ts'
import type { Ids } from '../../src/model/ids.ts'
import type { Controller } from '../../src/reconcile/controller.ts'
import { createReconciler, type Reconciler } from '../../src/reconcile/reconciler.ts'
import { memoryStore, type MemoryStore } from '../../src/store/sqlite/testing.ts'
import type { Store } from '../../src/store/store.ts'
import { createSeededIds } from '../support/ids.ts'
import { createVirtualClock, type VirtualClock } from '../support/virtual-clock.ts'
import { createLedger, gated, type Ledger } from './ledger.ts'
import { createMonitor, type Monitor } from './monitor.ts'

/** How a crash that falls on an engine's call turns out. */
export interface Crashes {
  /** The counted points at which the process dies, ascending; each is one crash. */
  readonly at: readonly number[]
  /** What was sent and not answered lands this long after the crash, ms. */
  readonly landsAfterMs: number
  /** How long nobody is there, ms. */
  readonly downMs: number
}

export const NO_CRASHES: Crashes = { at: [], landsAfterMs: 0, downMs: 0 }

export interface PlaneOptions {
  readonly seed: string
  readonly crashes?: Crashes
  readonly images?: Readonly<Record<string, ImageDraft>>
  readonly registry?: Readonly<Record<string, ImageDraft>>
  /** Virtual time that a call takes before it reaches the engine, ms. */
  readonly latencyMs?: number
}

/** One life of a control plane. What it waits for when it dies never comes. */
export interface Life {
  readonly store: Store
  readonly clock: Clock
  readonly ids: Ids
  readonly engine: Engine
  readonly controller: Controller
  readonly reconciler: Reconciler
  /** Resolves when it dies. */
  readonly died: Promise<void>
  alive(): boolean
}

/** A control plane on a simulated engine and a virtual clock that dies at counted points; and everything outlives it. */
export interface Plane {
  readonly clock: VirtualClock
  readonly world: World
  readonly behind: Behind
  readonly ledger: Ledger
  readonly monitor: Monitor
  readonly fatals: string[]
  /** Points passed so far, and what the last of them was. */
  readonly points: () => number
  readonly crashed: () => readonly string[]
  /** What each point is, in order. */
  readonly labels: readonly string[]
  /** While false no point is counted and none is deadly. */
  counting: boolean
  /** What befalls calls from now on. */
  fault: (call: CallName, args: readonly unknown[]) => Fault
  /** What becomes of events from now on. */
  event: () => 'deliver' | 'drop' | 'double' | 'hold'
  /** Why the next commit fails, or null. */
  refusal: () => Error | null
  /** The life there is; a new one after `downMs` when there is none. */
  alive(): Promise<Life>
  /** Lets time pass; a process that dies on the way is started again after its down time. */
  pass(ms: number): Promise<void>
  crashNow(): void
  lastEventSeq(): Promise<number>
}

/** Time passes in slices, so that a death on the way is noticed, ms. */
const SLICE_MS = 500
const QUIET = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined }
const IMAGE: ImageDraft = { files: { '/sandbox/seed.txt': 'seeded' } }

export function createPlane(options: PlaneOptions): Plane {
  const clock = createVirtualClock()
  const ids = createSeededIds(options.seed)
  const world = createWorld({ clock, seed: options.seed, images: options.images ?? { img: IMAGE } })
  for (const [name, draft] of Object.entries(options.registry ?? {})) world.addImage(name, draft, 'registry')
  const crashes = options.crashes ?? NO_CRASHES
  const deadly = new Set(crashes.at)
  const last = Math.max(0, ...crashes.at)
  const ledger = createLedger()
  const monitor = createMonitor({ world, ledger, clock })
  const fatals: string[] = []
  const crashed: string[] = []
  const labels: string[] = []
  let store: MemoryStore | null = null
  let life: (Life & { die(): void }) | null = null
  let points = 0

  /** True when the process is to die here. */
  const isDeadly = (what: string): boolean => {
    if (!plane.counting) return false
    points++
    labels.push(what)
    if (!deadly.has(points)) return false
    crashed.push(`${points}: ${what}`)
    return true
  }

  /** Two points for each change that is asked of the engine: sent and not yet done, done and not yet answered. */
  const onCall = (call: CallName, args: readonly unknown[]): Fault => {
    monitor.called(call, args)
    const fault = plane.fault(call, args)
    if (!MUTATIONS.has(call)) {
      monitor.answered(call, args, fault)
      return fault
    }
    if (isDeadly(`${call} sent`)) {
      plane.crashNow()
      return { kind: 'late', afterMs: crashes.landsAfterMs }
    }
    if (isDeadly(`${call} done, its answer lost`)) {
      plane.crashNow()
      return { kind: 'crash', effect: 'after' }
    }
    return fault
  }

  function begin(): Life & { die(): void } {
    const died = Promise.withResolvers<void>()
    let alive = true
    store = store ?? memoryStore(clock, ids)
    monitor.installation = store.installation
    const engine: SimulatedEngine = createSimulatedEngine(world, {
      id: 'sim',
      faults: { before: onCall, event: () => plane.event() },
      latencyMs: () => options.latencyMs ?? 0,
    })
    const ownClock: Clock = {
      now: () => clock.now(),
      monotonic: () => clock.monotonic(),
      after: (ms, fn) =>
        clock.after(ms, () => {
          if (alive) fn()
        }),
    }
    const own = gated(store, ledger, {
      alive: () => alive,
      point(what) {
        if (isDeadly(what)) plane.crashNow()
      },
      committed: () => monitor.check(),
      refusal: () => plane.refusal(),
    })
    const reconciler = createReconciler({
      store: own,
      engines: [engine],
      defaultEngine: 'sim',
      clock: ownClock,
      ids,
      log: QUIET,
      endpoint: 'http://127.0.0.1:8080',
      fatal: (error) => void (alive && fatals.push(error.message)),
    })
    return {
      store: own,
      clock: ownClock,
      ids,
      engine,
      controller: reconciler,
      reconciler,
      died: died.promise,
      alive: () => alive,
      die() {
        alive = false
        engine.sever()
        died.resolve()
      },
    }
  }

  const plane: Plane = {
    clock,
    world,
    behind: createBehind(world),
    ledger,
    monitor,
    fatals,
    counting: true,
    fault: () => OK,
    event: () => 'deliver',
    refusal: () => null,
    points: () => points,
    crashed: () => crashed,
    labels,
    async alive() {
      if (life !== null) return life
      if (store !== null && crashes.downMs > 0) await clock.advance(crashes.downMs)
      const next = begin()
      life = next
      await reload(ledger, next.store)
      // It can die while it starts; whoever needs one asks again.
      void next.reconciler.start()
      await clock.settle()
      return life === next ? next : plane.alive()
    },
    async pass(ms) {
      for (let left = ms; left > 0;) {
        await plane.alive()
        // Nobody dies any more once the last of the deadly points is passed.
        const slice = plane.counting && points < last ? Math.min(SLICE_MS, left) : left
        await clock.advance(slice)
        left -= slice
      }
      await plane.alive()
    },
    crashNow() {
      if (life === null || store === null) return
      life.die()
      life = null
      store = store.reopen()
    },
    async lastEventSeq() {
      const { store: own } = await plane.alive()
      return own.read((tx) => tx.lastEventSeq())
    },
  }
  return plane
}

/** What was committed just before a death may not have been entered: the store is what counts. */
async function reload(ledger: Ledger, store: Store): Promise<void> {
  const rows = await store.read(async (tx) => ({
    sandboxes: (await tx.sandboxes({ includeDeleted: true })).items,
    volumes: (await tx.volumes({ includeRemoved: true })).items,
    open: await tx.openSteps(),
  }))
  for (const r of rows.sandboxes) ledger.sandboxes.set(r.id, r)
  for (const v of rows.volumes) ledger.volumes.set(v.uid, v)
  const open = new Set(rows.open.map((row) => row.id))
  for (const [id, row] of ledger.steps)
    if (row.state === 'open' && !open.has(id)) ledger.steps.set(id, { ...row, state: 'done' })
  for (const row of rows.open) ledger.steps.set(row.id, row)
}
