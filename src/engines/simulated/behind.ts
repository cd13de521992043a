import type { CreateInstance } from '../engine.ts'
import type { FileDraft } from './files.ts'
import { put } from './files.ts'
import type { SimContainer } from './objects.ts'
import {
  createContainer,
  createVolume,
  finish,
  killContainer,
  pauseContainer,
  removeContainer,
  startContainer,
  stopContainer,
} from './operations.ts'
import type { World } from './world.ts'

export interface EndOptions {
  /** The exit status of each container that ends. */
  readonly code?: number | ((name: string) => number)
}

export interface DaemonStart extends EndOptions {
  /** Containers that outlived the daemon go on, and the run is still the same: it cannot have ended them. */
  readonly liveRestore?: boolean
}

/**
 * Everything that happens to an engine without the control plane: people, crashes, other programs. None of it counts
 * as an effect of ours.
 */
export interface Behind {
  /** The daemon is told to end: it stops every container, tells of it, and goes. Status 0 unless said otherwise. */
  stopDaemon(options?: EndOptions & { readonly liveRestore?: boolean }): void
  /** The daemon dies. Containers go on for now, see `startDaemon`. */
  killDaemon(): void
  /** The machine loses power: everything ends at once, unseen. Status 255 unless said otherwise. */
  cutPower(options?: EndOptions): void
  /** Without `liveRestore` it ends what outlived the daemon before it, with 137 unless said otherwise. */
  startDaemon(options?: DaemonStart): void
  kill(nameOrId: string): void
  /** As `docker stop` by somebody: the workload may finish. */
  stop(nameOrId: string, graceMs?: number): Promise<void>
  start(nameOrId: string): void
  pause(nameOrId: string): void
  /** The kernel's memory killer ended it. */
  killForMemory(nameOrId: string): void
  remove(nameOrId: string): void
  /** All containers are gone, as after a data root was lost; volumes stay. */
  forgetContainers(): void
  /** A container of somebody else's. */
  createForeign(
    request: Partial<CreateInstance> & { readonly name: string; readonly image: string },
  ): SimContainer
  createVolume(
    name: string,
    labels?: Readonly<Record<string, string>>,
    files?: Readonly<Record<string, FileDraft>>,
  ): void
  /** Even one in use, as by a hand in the data root. */
  removeVolume(name: string): void
  /** The engine goes on saying that it runs, and cannot end it until the daemon is started again. */
  makeZombie(nameOrId: string): void
  /** The image is gone from the engine, and with `registry` from there as well. */
  removeImage(name: string, where?: 'engine' | 'registry'): void
}

export function createBehind(world: World): Behind {
  let run = 1
  let boot = 1
  const seed = (world.daemon.run.engine ?? 'world-engine-1').replace(/-engine-\d+$/, '')
  const find = (nameOrId: string): SimContainer => {
    const c = world.find(nameOrId)
    if (c === null) throw new Error(`there is no container ${nameOrId}`)
    return c
  }
  const endAll = (options: EndOptions, otherwise: number): void => {
    const { code = otherwise } = options
    for (const c of world.containers.values()) {
      if (c.state !== 'running') continue
      c.endedBy = null
      finish(world, c, typeof code === 'function' ? code(c.name) : code)
    }
  }
  let outlive = false

  return {
    stopDaemon(options = {}) {
      outlive = options.liveRestore === true
      if (!outlive) endAll(options, 0)
      world.setUp(false)
    },
    killDaemon() {
      outlive = true
      world.setUp(false)
    },
    cutPower(options = {}) {
      world.setUp(false)
      endAll(options, 255)
      outlive = false
      boot += 1
    },
    startDaemon(options = {}) {
      const keeps = options.liveRestore === true && outlive
      if (!keeps) endAll(options, 137)
      for (const c of world.containers.values()) c.zombie = false
      if (!keeps) run += 1
      outlive = false
      world.daemon.run = { engine: `${seed}-engine-${run}`, boot: `${seed}-boot-${boot}` }
      world.setUp(true)
      world.emit({ kind: 'resync', at: world.clock.now() })
    },
    kill: (nameOrId) => void killContainer(find(nameOrId)),
    async stop(nameOrId, graceMs = 10_000) {
      await stopContainer(world, find(nameOrId), graceMs)
    },
    start: (nameOrId) => void startContainer(world, find(nameOrId)),
    pause: (nameOrId) => void pauseContainer(world, find(nameOrId)),
    killForMemory(nameOrId) {
      const c = find(nameOrId)
      c.oomKilled = true
      finish(world, c, 137)
    },
    remove(nameOrId) {
      removeContainer(world, find(nameOrId).id)
    },
    forgetContainers() {
      for (const c of world.containers.values()) finish(world, c, 137)
      world.containers.clear()
    },
    createForeign: (request) =>
      createContainer(world, {
        labels: {},
        entrypoint: [],
        env: {},
        limits: {},
        mounts: [],
        workingDir: null,
        user: null,
        hostname: request.name,
        ...request,
      }),
    createVolume(name, labels = {}, files = {}) {
      createVolume(world, { name, labels, sizeBytes: null })
      const tree = world.volumes.get(name)?.tree
      for (const [path, draft] of Object.entries(files)) if (tree !== undefined) put(tree, path, draft)
    },
    removeVolume: (name) => void world.volumes.delete(name),
    makeZombie: (nameOrId) => void (find(nameOrId).zombie = true),
    removeImage: (name, where = 'engine') =>
      void world[where === 'engine' ? 'images' : 'registry'].delete(name),
  }
}
