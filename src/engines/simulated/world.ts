import { createHash } from 'node:crypto'
import type { Clock } from '../../model/clock.ts'
import type { EngineRun } from '../../model/facts.ts'
import type { EngineEvent } from '../engine.ts'
import { digest, emptyTree, type FileDraft, put, texts, type Tree, treeOf } from './files.ts'
import type { SimContainer, SimImage, SimVolume } from './objects.ts'

export interface ImageDraft {
  readonly files?: Readonly<Record<string, FileDraft>>
  readonly entrypoint?: readonly string[]
  readonly command?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly labels?: Readonly<Record<string, string>>
  /** Paths declared as `VOLUME`. */
  readonly volumes?: readonly string[]
  readonly user?: string
}

export interface WorldOptions {
  readonly clock: Clock
  /** Decides every id, so that a run can be repeated. */
  readonly seed?: string
  /** Images on the engine from the beginning. */
  readonly images?: Readonly<Record<string, ImageDraft>>
}

export interface ContainerDump {
  readonly name: string
  readonly image: string
  readonly labels: Readonly<Record<string, string>>
  readonly state: string
  readonly paused: boolean
  readonly exitCode: number | null
  readonly mounts: readonly string[]
}

export interface VolumeDump {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly digest: string
}

/** All there is, without ids and times, in an order that does not depend on history: for comparing two runs. */
export interface WorldDump {
  readonly containers: readonly ContainerDump[]
  readonly volumes: readonly VolumeDump[]
}

/**
 * What an engine's machine holds: containers, volumes, images and the daemon. It outlives every engine handle, as a
 * real engine outlives the control plane; `createBehind` changes it without the control plane's knowledge.
 */
export interface World {
  readonly clock: Clock
  /** By id, in order of creation. */
  readonly containers: Map<string, SimContainer>
  readonly volumes: Map<string, SimVolume>
  readonly images: Map<string, SimImage>
  /** What a pull finds. */
  readonly registry: Map<string, SimImage>
  /** Directories of the machine, for host mounts. */
  readonly hostPaths: Map<string, Tree>
  readonly daemon: { up: boolean; run: EngineRun }
  /** What engine handles asked for, by method. */
  readonly calls: Map<string, number>
  /** What engine handles really changed, by method. A call that found nothing to do is not in it. */
  readonly effects: Map<string, number>
  find(nameOrId: string): SimContainer | null
  nextId(): string
  addImage(name: string, draft?: ImageDraft, where?: 'engine' | 'registry'): SimImage
  hostTree(path: string): Tree
  emit(event: EngineEvent): void
  /** The returned function ends the subscription. */
  subscribe(listener: (event: EngineEvent) => void): () => void
  /** Called when the daemon goes down. The returned function ends it. */
  onDown(listener: () => void): () => void
  setUp(up: boolean): void
  /** Sum of `effects`. */
  mutations(): number
  /** Path → text of a volume's files; null when there is no such volume. */
  volumeContent(name: string): Record<string, string> | null
  /** Puts a file into a volume, as a workload would. */
  writeVolume(name: string, path: string, draft: FileDraft): void
  dump(): WorldDump
}

export function createWorld(options: WorldOptions): World {
  const seed = options.seed ?? 'world'
  const listeners = new Set<(event: EngineEvent) => void>()
  const downs = new Set<() => void>()
  let ids = 0

  const world: World = {
    clock: options.clock,
    containers: new Map(),
    volumes: new Map(),
    images: new Map(),
    registry: new Map(),
    hostPaths: new Map(),
    daemon: { up: true, run: { engine: `${seed}-engine-1`, boot: `${seed}-boot-1` } },
    calls: new Map(),
    effects: new Map(),
    find(nameOrId) {
      const byId = world.containers.get(nameOrId)
      if (byId !== undefined) return byId
      for (const container of world.containers.values()) if (container.name === nameOrId) return container
      return null
    },
    nextId: () =>
      createHash('sha256')
        .update(`${seed}/${(ids += 1)}`)
        .digest('hex'),
    addImage(name, draft = {}, where = 'engine') {
      const image = makeImage(name, draft)
      world[where === 'engine' ? 'images' : 'registry'].set(name, image)
      return image
    },
    hostTree(path) {
      const tree = world.hostPaths.get(path) ?? emptyTree()
      world.hostPaths.set(path, tree)
      return tree
    },
    emit(event) {
      for (const listener of listeners) listener(event)
    },
    subscribe(listener) {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
    onDown(listener) {
      downs.add(listener)
      return () => void downs.delete(listener)
    },
    setUp(up) {
      const went = world.daemon.up && !up
      world.daemon.up = up
      if (went) for (const listener of downs) listener()
    },
    mutations: () => [...world.effects.values()].reduce((sum, n) => sum + n, 0),
    volumeContent(name) {
      const volume = world.volumes.get(name)
      return volume === undefined ? null : texts(volume.tree)
    },
    writeVolume(name, path, draft) {
      const volume = world.volumes.get(name)
      if (volume === undefined) throw new Error(`there is no volume ${name}`)
      put(volume.tree, path, draft)
    },
    dump: () => dump(world),
  }
  for (const [name, draft] of Object.entries(options.images ?? {})) world.addImage(name, draft)
  return world
}

function makeImage(name: string, draft: ImageDraft): SimImage {
  const tree = treeOf(draft.files ?? {})
  tree.set('/tmp', { type: 'directory', mode: 0o1777 })
  return {
    name,
    id: `sha256:${createHash('sha256')
      .update(JSON.stringify([name, draft]))
      .digest('hex')}`,
    entrypoint: draft.entrypoint ?? [],
    command: draft.command ?? ['sim', 'run'],
    env: draft.env ?? {},
    labels: draft.labels ?? {},
    volumes: draft.volumes ?? [],
    user: draft.user ?? '0',
    tree,
  }
}

function dump(world: World): WorldDump {
  const byName = (a: { name: string }, b: { name: string }): number => (a.name < b.name ? -1 : 1)
  const containers = [...world.containers.values()].map((c) => ({
    name: c.name,
    image: c.request.image,
    labels: c.request.labels,
    state: c.state,
    paused: c.paused,
    exitCode: c.exitCode,
    mounts: c.mounts.map((m) => `${m.volume ?? m.host}:${m.path}${m.readOnly ? ':ro' : ''}`),
  }))
  const volumes = [...world.volumes.values()].map((v) => ({
    name: v.name,
    labels: v.labels,
    digest: digest(v.tree),
  }))
  return { containers: containers.toSorted(byName), volumes: volumes.toSorted(byName) }
}
