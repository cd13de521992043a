import { createBehind, type Behind } from '../../src/engines/simulated/behind.ts'
import { createSimulatedEngine, type SimulatedEngine } from '../../src/engines/simulated/engine.ts'
import type { FaultPlan } from '../../src/engines/simulated/faults.ts'
import { createWorld, type ImageDraft, type World } from '../../src/engines/simulated/world.ts'
import { physicalVolumeName } from '../../src/model/ids.ts'
import type { Desired, SandboxRecord, StepKind, VolumeRecord } from '../../src/model/records.ts'
import { specHash } from '../../src/model/spec.ts'
import type { StepPoint } from '../../src/reconcile/context.ts'
import { sandboxKey } from '../../src/reconcile/controller.ts'
import { createReconciler, type Reconciler } from '../../src/reconcile/reconciler.ts'
import { memoryStore, type MemoryStore } from '../../src/store/sqlite/testing.ts'
import { createSeededIds } from './ids.ts'
import { aSandbox, aVolume } from './plan.ts'
import { createVirtualClock, type VirtualClock } from './virtual-clock.ts'

/** A whole control plane on a simulated engine and a virtual clock, which can crash at any counted point. */
export interface ControlPlane {
  readonly clock: VirtualClock
  readonly world: World
  readonly behind: Behind
  store: MemoryStore
  reconciler: Reconciler
  /** Points of steps that were passed so far. */
  points: number
  /** Die at this point, counted from 1; 0 means never. */
  crashAt: number
  readonly fatals: string[]
  start(): Promise<void>
  /** All memory is lost at once: no handler of the old one runs to an end. */
  crash(): void
  restart(): Promise<void>
  add(change?: Partial<SandboxRecord>, volume?: Partial<VolumeRecord>): Promise<string>
  change(id: string, change: (r: SandboxRecord) => Partial<SandboxRecord>): Promise<void>
  want(id: string, desired: Desired): Promise<void>
  get(id: string): Promise<SandboxRecord>
  volumes(): Promise<readonly VolumeRecord[]>
  openSteps(): Promise<number>
  /** Runs virtual time until the sandbox shows the phase. */
  reaches(id: string, phase: string): Promise<SandboxRecord>
  /** Runs virtual time until nothing is left to do. */
  converge(): Promise<void>
  stop(): Promise<void>
}

export interface ControlPlaneOptions {
  readonly seed?: string
  readonly images?: Readonly<Record<string, ImageDraft>>
  readonly faults?: FaultPlan
  readonly onPoint?: (kind: StepKind, point: StepPoint, n: number) => void
}

const QUIET = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined }
const IMAGE: ImageDraft = { files: { '/sandbox/seed.txt': 'seeded' } }

export function createControlPlane(options: ControlPlaneOptions = {}): ControlPlane {
  const clock = createVirtualClock()
  const seed = options.seed ?? 'seed'
  const ids = createSeededIds(seed)
  const world = createWorld({ clock, seed, images: options.images ?? { img: IMAGE } })
  let engine: SimulatedEngine = newEngine()

  function newEngine(): SimulatedEngine {
    return createSimulatedEngine(world, {
      id: 'sim',
      ...(options.faults === undefined ? {} : { faults: options.faults }),
    })
  }

  function newReconciler(store: MemoryStore): Reconciler {
    return createReconciler({
      store,
      engines: [engine],
      defaultEngine: 'sim',
      clock,
      ids,
      log: QUIET,
      endpoint: 'http://127.0.0.1:8080',
      fatal: (error) => cp.fatals.push(error.message),
      hooks: {
        point(kind, point) {
          if (store !== cp.store) return
          cp.points++
          options.onPoint?.(kind, point, cp.points)
          if (cp.points === cp.crashAt) cp.crash()
        },
      },
    })
  }

  const cp: ControlPlane = {
    clock,
    world,
    behind: createBehind(world),
    store: memoryStore(clock, ids),
    reconciler: null as never,
    points: 0,
    crashAt: 0,
    fatals: [],
    async start() {
      await cp.reconciler.start()
      await clock.settle()
    },
    crash() {
      engine.sever()
      // Its passes are cut off and never settle; only its timers are taken away.
      void cp.reconciler.stop()
      cp.store = cp.store.reopen()
      engine = newEngine()
      cp.reconciler = newReconciler(cp.store)
    },
    restart: () => cp.start(),
    async add(change = {}, volume = {}) {
      const id = ids.next()
      const uid = ids.next()
      const now = clock.now()
      const base = aSandbox()
      const spec = {
        ...base.spec,
        mounts: base.spec.mounts.map((m) => (m.kind === 'volume' ? { ...m, volume: uid } : m)),
        entrypoint: ['sim', 'run'],
      }
      const record = {
        ...base,
        id,
        spec,
        specHash: specHash(spec),
        imageId: null,
        createdAt: now,
        updatedAt: now,
        desiredAt: now,
        ...change,
      }
      const row = aVolume({
        uid,
        owner: id,
        physicalName: physicalVolumeName('workspace', uid, 1),
        state: 'planned',
        seed: 'pending',
        engineCreatedAt: null,
        createdAt: now,
        ...volume,
      })
      await cp.store.write(true, async (tx) => {
        await tx.insertVolume(row)
        await tx.insertSandbox(record)
      })
      cp.reconciler.kick(sandboxKey(id))
      return id
    },
    async change(id, change) {
      await cp.store.write(true, async (tx) => {
        const r = await tx.sandbox(id)
        if (r === null) throw new Error(`no sandbox ${id}`)
        if (!(await tx.updateSandbox({ ...r, ...change(r) }))) throw new Error('conflict')
      })
      cp.reconciler.kick(sandboxKey(id))
    },
    want: (id, desired) =>
      cp.change(id, (r) => ({
        desired,
        desiredReason: 'user',
        desiredAt: clock.now(),
        generation: r.generation + 1,
      })),
    async get(id) {
      const r = await cp.store.read((tx) => tx.sandbox(id))
      if (r === null) throw new Error(`no sandbox ${id}`)
      return r
    },
    volumes: async () => (await cp.store.read((tx) => tx.volumes({}))).items,
    openSteps: async () => (await cp.store.read((tx) => tx.openSteps())).length,
    async reaches(id, phase) {
      await clock.runUntil(
        `${id} is ${phase}`,
        async () => (await cp.get(id)).status.phase === phase,
        1_200_000,
      )
      return cp.get(id)
    },
    async converge() {
      // Longer than any call limit and backoff at these failure counts, and several full lists.
      for (let i = 0; i < 20; i++) await clock.advance(10_000)
    },
    async stop() {
      await cp.reconciler.stop()
      await cp.store.close()
    },
  }
  cp.reconciler = newReconciler(cp.store)
  return cp
}
