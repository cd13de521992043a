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
import { createLedger, enterSandbox, enterStep, gated, type Ledger } from './ledger.ts'
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
  /** What the spread of waits is; random when absent. */
  readonly spread?: number
  /** Puts something between a life and its engine and store. */
  readonly between?: (life: { readonly engine: Engine; readonly store: Store; alive(): boolean }) => {
    readonly engine: Engine
    readonly store: Store
  }
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
  /** The process dies at the `points`-th point from now, besides the deaths that are placed already. */
  crashAfter(points: number, how: Omit<Crashes, 'at'>): void
  /**
   * Another process opens the store while this one goes on, and knows nothing of it until it is refused. Gives the
   * former life, which may commit nothing and ask the engine for nothing any more.
   */
  supersede(): Promise<Life>
  lastEventSeq(): Promise<number>
}

/** Time passes in slices, so that a death on the way is noticed, ms. */
const SLICE_MS = 500
const QUIET = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined }
const IMAGE: ImageDraft = { files: { '/sandbox/seed.txt': 'seeded' } }

export function createPlane(options: PlaneOptions): Plane {
  const clock = createVirtualClock()
  const seeded = createSeededIds(options.seed)
  const { spread } = options
  const ids: Ids = spread === undefined ? seeded : { ...seeded, random: () => spread }
  const world = createWorld({ clock, seed: options.seed, images: options.images ?? { img: IMAGE } })
  for (const [name, draft] of Object.entries(options.registry ?? {})) world.addImage(name, draft, 'registry')
  const crashes = options.crashes ?? NO_CRASHES
  const deadly = new Set(crashes.at)
  let last = Math.max(0, ...crashes.at)
  let { landsAfterMs, downMs } = crashes
  let down = 0
  const ledger = createLedger()
  const monitor = createMonitor({ world, ledger, clock })
  const fatals: string[] = []
  const crashed: string[] = []
  const labels: string[] = []
  let store: MemoryStore | null = null
  let life: (Life & { die(): void }) | null = null
  let points = 0
  const formers = new Set<Life>()

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
      return { kind: 'late', afterMs: landsAfterMs }
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
    const isFormer = (): boolean => formers.has(mine)
    store = store ?? memoryStore(clock, ids)
    monitor.installation = store.installation
    const simulated: SimulatedEngine = createSimulatedEngine(world, {
      id: 'sim',
      faults: {
        before: (call, args) => (isFormer() ? refused(call) : onCall(call, args)),
        event: () => plane.event(),
      },
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
    const gate = gated(store, ledger, {
      alive: () => alive,
      point(what) {
        if (!isFormer() && isDeadly(what)) plane.crashNow()
      },
      committed() {
        if (isFormer()) monitor.violations.push(`${clock.now()} an older epoch has committed`)
        monitor.check()
      },
      refusal: () => plane.refusal(),
    })
    const direct = { engine: simulated, store: gate, alive: () => alive }
    const { engine, store: own } = options.between?.(direct) ?? direct
    const reconciler = createReconciler({
      store: own,
      engines: [engine],
      defaultEngine: 'sim',
      clock: ownClock,
      ids,
      log: QUIET,
      endpoint: 'http://127.0.0.1:8080',
      fatal(error) {
        // The one that was superseded has noticed, and ends as the built program does.
        if (isFormer()) mine.die()
        else if (alive) fatals.push(error.message)
      },
    })
    const mine: Life & { die(): void } = {
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
        simulated.sever()
        died.resolve()
      },
    }
    return mine
  }

  /** It can die, or be superseded, while it starts. */
  async function launch(next: Life & { die(): void }): Promise<void> {
    try {
      await next.reconciler.start()
    } catch (error) {
      if (formers.has(next)) next.die()
      else if (next.alive()) fatals.push(error instanceof Error ? error.message : String(error))
    }
  }

  /** A change that a superseded process asks for has passed its fence. */
  function refused(call: CallName): Fault {
    if (MUTATIONS.has(call)) monitor.violations.push(`${clock.now()} an older epoch has asked for ${call}`)
    return OK
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
      if (down > 0) await clock.advance(down)
      down = 0
      const next = begin()
      life = next
      await reload(ledger, next.store)
      // It can die while it starts; whoever needs one asks again.
      void launch(next)
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
      down = downMs
      store = store.reopen()
    },
    crashAfter(n, how) {
      last = points + n
      deadly.add(last)
      landsAfterMs = how.landsAfterMs
      downMs = how.downMs
    },
    async supersede() {
      const former = await plane.alive()
      // What it has in hand is committed or not, so that whatever it commits from now on is too late.
      await clock.settle()
      if (life !== former || store === null) return plane.supersede()
      formers.add(former)
      store = store.reopen()
      const next = begin()
      life = next
      await reload(ledger, next.store)
      void launch(next)
      await clock.settle()
      return former
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
  for (const r of rows.sandboxes) enterSandbox(ledger, r)
  for (const v of rows.volumes) ledger.volumes.set(v.uid, v)
  const open = new Set(rows.open.map((row) => row.id))
  for (const [id, row] of ledger.steps)
    if (row.state === 'open' && !open.has(id)) ledger.steps.set(id, { ...row, state: 'done' })
  for (const row of rows.open) enterStep(ledger, row)
}
