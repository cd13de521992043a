import { duplexPair } from 'node:stream'
import { EngineError, type InstanceFacts, type VolumeFacts } from '../../model/facts.ts'
import type { Call, Capabilities, Engine } from '../engine.ts'
import { createCaller, type Work } from './calls.ts'
import { type CallName, type FaultPlan, noFaults } from './faults.ts'
import { instanceFacts, volumeFacts } from './objects.ts'
import {
  createContainer,
  createVolume,
  execIn,
  filesOf,
  isOurs,
  mustFind,
  pauseContainer,
  removeContainer,
  removeVolume,
  startContainer,
  stopContainer,
  tearCreate,
  unpauseContainer,
} from './operations.ts'
import { createExecStream, readEvents, readLog } from './streams.ts'
import { packPath, unpackInto } from './tar.ts'
import type { World } from './world.ts'

export interface SimulatedOptions {
  readonly id?: string
  readonly faults?: FaultPlan
  /** Virtual time that a call takes before it reaches the daemon, milliseconds; none when absent. */
  readonly latencyMs?: (call: CallName) => number
  readonly capabilities?: Partial<Capabilities>
  /** False: the engine never knows why an instance ended. */
  readonly knowsExitCause?: boolean
}

export interface SimulatedEngine extends Engine {
  /**
   * The control plane that holds this handle is gone: none of its calls, running or new, ever settles, and no event
   * comes. What the world was doing for it goes on.
   */
  sever(): void
}

const CAPABILITIES: Capabilities = {
  pause: true,
  memoryLimit: true,
  cpuLimit: true,
  pidsLimit: true,
  volumeSize: false,
  tty: true,
  lanes: false,
  pull: true,
  dial: true,
  notEnforced: [],
}

/** A handle on a world. Any number of them may exist, as control planes come and go. */
export function createSimulatedEngine(world: World, options: SimulatedOptions = {}): SimulatedEngine {
  const capabilities = { ...CAPABILITIES, ...options.capabilities }
  const faults = options.faults ?? noFaults
  const lists = new Map<CallName, readonly unknown[]>()
  const caller = createCaller(world, faults, options.latencyMs ?? (() => 0))

  const perform = <T>(
    call: Call,
    name: CallName,
    args: readonly unknown[],
    run: Work<T>['run'],
  ): Promise<T> => caller.perform(call, { name, args, run })
  /** A change whose result says whether there was anything to change. */
  const change = async (
    call: Call,
    name: CallName,
    args: readonly unknown[],
    run: Work<boolean>['run'],
  ): Promise<void> => {
    await caller.perform(call, { name, args, run, changed: (did) => did })
  }
  const need = (ability: keyof Capabilities): Promise<never> | null =>
    capabilities[ability] === false
      ? Promise.reject(new EngineError('unsupported', 'none', `this engine has no ${ability}`))
      : null
  /** A list as it is, or as the fault of this call would have it. */
  const list = <T extends InstanceFacts | VolumeFacts>(
    call: Call,
    name: 'listInstances' | 'listVolumes',
    all: () => readonly T[],
  ): Promise<readonly T[]> =>
    perform(call, name, [], (fault) => {
      const whole = all()
      const before = (lists.get(name) ?? []) as readonly T[]
      lists.set(name, whole)
      if (fault.kind === 'stale-list') return before
      return fault.kind === 'partial-list' ? whole.filter(fault.keep) : whole
    })

  return {
    id: options.id ?? 'simulated',
    driver: 'simulated',
    capabilities,
    info: (call) =>
      perform(call, 'info', [], () => ({
        version: '1',
        apiVersion: '1',
        endpoint: 'memory:',
        run: { ...world.daemon.run },
        details: {},
      })),

    listInstances: (call) =>
      list(call, 'listInstances', () =>
        [...world.containers.values()].filter(isOurs).map((c) => instanceFacts(c, { ...world.daemon.run })),
      ),
    inspectInstance: (nameOrId, call) =>
      perform(call, 'inspectInstance', [nameOrId], () => {
        const c = world.find(nameOrId)
        return c === null ? null : instanceFacts(c, { ...world.daemon.run })
      }),
    describeInstance: (id, call) =>
      perform(call, 'describeInstance', [id], () => {
        const c = world.find(id)
        if (c === null) return null
        const { image, entrypoint, env, limits, workingDir, user, mounts } = c.request
        const plain = mounts.map(({ path, readOnly, source }) => ({ path, readOnly, source }))
        return { image, entrypoint, env, limits, workingDir, user, mounts: plain, imageKnown: true }
      }),
    createInstance: (request, call) =>
      caller.perform(call, {
        name: 'createInstance',
        args: [request],
        run: () => ({ id: createContainer(world, request).id }),
        tear: () => tearCreate(world, request),
      }),
    startInstance: (id, call) =>
      change(call, 'startInstance', [id], () => startContainer(world, mustFind(world, id))),
    stopInstance: (id, graceMs, call) =>
      change(call, 'stopInstance', [id, graceMs], () => stopContainer(world, mustFind(world, id), graceMs)),
    pauseInstance: (id, call) =>
      need('pause') ?? change(call, 'pauseInstance', [id], () => pauseContainer(world, mustFind(world, id))),
    unpauseInstance: (id, call) =>
      need('pause') ??
      change(call, 'unpauseInstance', [id], () => unpauseContainer(world, mustFind(world, id))),
    removeInstance: (id, call) => change(call, 'removeInstance', [id], () => removeContainer(world, id)),
    exitCause: (facts, call) =>
      perform(call, 'exitCause', [facts.id], () => {
        const c = world.find(facts.id)
        if (options.knowsExitCause === false || c === null || c.startedAt !== facts.startedAt) return null
        return c.endedBy
      }),

    listVolumes: (call) => list(call, 'listVolumes', () => [...world.volumes.values()].map(volumeFacts)),
    inspectVolume: (name, call) =>
      perform(call, 'inspectVolume', [name], () => {
        const volume = world.volumes.get(name)
        return volume === undefined ? null : volumeFacts(volume)
      }),
    createVolume: (request, call) =>
      change(call, 'createVolume', [request], () => createVolume(world, request)),
    removeVolume: (name, call) => change(call, 'removeVolume', [name], () => removeVolume(world, name)),
    volumeIsEmpty: (name, call) =>
      perform(call, 'volumeIsEmpty', [name], () => {
        const volume = world.volumes.get(name)
        if (volume === undefined) throw new EngineError('not-found', 'none', `there is no volume ${name}`)
        return [...volume.tree.keys()].every((path) => path === '/' || path === '/lost+found')
      }),

    inspectImage: (name, call) =>
      perform(call, 'inspectImage', [name], () => {
        const image = world.images.get(name)
        if (image === undefined) return null
        const { id, entrypoint, command, volumes, user } = image
        return { id, entrypoint, command, volumes, user }
      }),
    pullImage: (name, progress, call) =>
      need('pull') ??
      change(call, 'pullImage', [name], () => {
        const image = world.registry.get(name)
        if (image === undefined) throw new EngineError('image-missing', 'none', `no registry has ${name}`)
        progress(`pulled ${name}`)
        const had = world.images.get(name)?.id === image.id
        world.images.set(name, image)
        return !had
      }),

    exec: (id, request, call) =>
      (request.tty === undefined ? null : need('tty')) ??
      perform(call, 'exec', [id, request], () => {
        const c = mustFind(world, id)
        return createExecStream(request, (io) => execIn(world, c, request, io))
      }),
    logs: (id, request, call) =>
      perform(call, 'logs', [id, request], () => readLog(mustFind(world, id), request, call.signal)),
    stats: (id, call) =>
      perform(call, 'stats', [id], () => {
        const c = mustFind(world, id)
        if (c.state !== 'running') throw new EngineError('conflict', 'none', `${c.name} is not running`)
        const at = world.clock.now()
        const cpuMs = Math.max(0, at - (c.startedAt ?? at)) / 10
        const memoryLimitBytes = c.request.limits.memoryBytes ?? null
        return { at, cpuMs, memoryBytes: 1024 * 1024, memoryLimitBytes, pids: 1 + c.execs.size }
      }),
    copyOut: (id, path, call) =>
      perform(call, 'copyOut', [id, path], () => packPath(filesOf(world, mustFind(world, id)), path)),
    copyIn: (id, path, tar, call) =>
      perform(call, 'copyIn', [id, path], () => unpackInto(filesOf(world, mustFind(world, id)), path, tar)),
    dial: (id, port, call) =>
      need('dial') ??
      perform(call, 'dial', [id, port], () => {
        const c = mustFind(world, id)
        if (c.state !== 'running') throw new EngineError('conflict', 'none', `${c.name} is not running`)
        if (!c.ports.has(port))
          throw new EngineError('failed', 'none', `nothing listens on port ${port} of ${c.name}`)
        const [near, far] = duplexPair()
        far.pipe(far)
        return near
      }),

    events: (signal) => readEvents(world, faults, signal, () => caller.severed()),
    close: async () => undefined,
    sever: () => caller.sever(),
  }
}
