import { spawnSync } from 'node:child_process'
import { realpath } from 'node:fs/promises'
import { release } from 'node:os'
import type { Clock } from '../../model/clock.ts'
import { EngineError, type InstanceFacts } from '../../model/facts.ts'
import type { Ids } from '../../model/ids.ts'
import { LABEL } from '../../model/labels.ts'
import type { Call, Engine, LogChunk } from '../engine.ts'
import { capabilitiesOf } from './capabilities.ts'
import { type Cgroups, openCgroups } from './cgroup.ts'
import { createLocks, framed, type Locks, messageOf, refuse, type Work } from './errors.ts'
import { createHub, type Hub } from './events.ts'
import { findTools } from './exec.ts'
import { findTool, hostEnvironment, layoutOf, openLayout, removeTree } from './files.ts'
import { DEFAULT_COMMAND, findImage, requireImage, viewHost } from './image.ts'
import { LAYOUT_LOCK } from './create.ts'
import { createInstances, type Instances } from './instances.ts'
import type { Mode } from './launch.ts'
import { engineRun } from './look.ts'
import { readLogs, trimLogs } from './logs.ts'
import type { Ground } from './prepare.ts'
import { createReach, type Reach } from './reach.ts'
import { factsOf, type Instance, instanceNames, originOf } from './records.ts'
import { createVolumes, type Volumes } from './volumes.ts'

export interface LocalEngineOptions {
  readonly id: 'local'
  /** Holds all of the engine's state: instances, volumes, and what both are made of. */
  readonly root: string
  /** `namespaces` only where `probeIsolation` found them; `none` are plain processes of the server's user. */
  readonly isolation: 'namespaces' | 'none'
  /** Prefixes under which host paths may be mounted and `dir:` images may lie. */
  readonly allowedHostPaths: readonly string[]
  readonly clock: Clock
  readonly ids: Ids
}

/** As root, a user namespace keeps an instance's root from the host's kernel; some kernels give none. */
function modeOf(isolation: 'namespaces' | 'none'): Mode {
  if (isolation === 'none') return 'none'
  if (process.getuid?.() !== 0) return 'single'
  const tried = spawnSync('unshare', ['--user', '--map-root-user', 'true'], {
    env: hostEnvironment(),
    timeout: 10_000,
  })
  return tried.status === 0 ? 'identity' : 'bare'
}

/** Image `host` shows /usr, read-only; only there is the host's program certain to be the host's. */
async function shownUmount(): Promise<string | null> {
  const found = await findTool('umount')
  const real = found === null ? null : await realpath(found)
  return real?.startsWith('/usr/') ? real : null
}

interface Opened {
  readonly instances: Instances
  readonly volumes: Volumes
  readonly reach: Reach
}

interface Frame {
  readonly options: LocalEngineOptions
  readonly mode: Mode
  readonly cgroups: Cgroups | null
  readonly locks: Locks
  readonly hub: Hub
}

async function open({ options, mode, cgroups, locks, hub }: Frame): Promise<Opened> {
  const { clock, ids } = options
  const layout = layoutOf(options.root)
  const left = await openLayout(layout)
  // What cannot be removed now is tried again at the next open; it is out of everybody's sight.
  void Promise.allSettled(left.map(removeTree))
  const volumes = createVolumes(layout, clock, ids)
  const ground: Ground = { mode, layout, view: await viewHost(), allowed: options.allowedHostPaths, volumes }
  const instances = createInstances({
    ground,
    clock,
    ids,
    cgroups,
    locks,
    umount: await shownUmount(),
    notify: (name, id, action) => hub.emit({ kind: 'instance', name, id, action, at: clock.now() }),
    watch: (instance, init) => hub.watch(instance.meta.id, instance.dir, init),
  })
  const reach = createReach({ ground, clock, cgroups, locks, tools: await findTools(), instances })
  return { instances, volumes, reach }
}

async function loadAll(options: LocalEngineOptions, opened: Opened): Promise<Instance[]> {
  const all: Instance[] = []
  for (const name of await instanceNames(layoutOf(options.root))) {
    const instance = await opened.instances.load(name)
    if (instance !== null) all.push(instance)
  }
  return all
}

/**
 * Sandboxes without a daemon and without an install: util-linux's programs, and directories below `root`. It has no
 * run of its own, so an exit is the workload's unless the machine was booted anew. Not a security boundary.
 */
export function createLocalEngine(options: LocalEngineOptions): Engine {
  const { clock } = options
  const mode = modeOf(options.isolation)
  const cgroups = mode === 'none' ? null : openCgroups(options.root, clock)
  const locks = createLocks()
  let opening: Promise<Opened> | null = null
  const opened = (): Promise<Opened> => (opening ??= open({ options, mode, cgroups, locks, hub }))
  const hub = createHub(clock, {
    async begin() {
      for (const instance of await loadAll(options, await opened()))
        if (instance.state.phase === 'started' && instance.state.init !== null)
          hub.watch(instance.meta.id, instance.dir, instance.state.init)
    },
    ended: async (id) => void (await (await opened()).instances.load(id)),
    trim: trimLogs,
  })
  const capabilities = capabilitiesOf(mode, cgroups)
  const run = <T>(call: Call, what: string, work: (o: Opened, w: Work) => Promise<T>): Promise<T> =>
    framed(clock, call, what, async (w) => work(await opened(), w))
  const need = (ability: 'pause' | 'dial' | 'pull' | 'tty', what: string): void => {
    if (!capabilities[ability]) throw refuse('unsupported', `the local engine cannot ${what} here`)
  }
  const facts = async (o: Opened, instance: Instance): Promise<InstanceFacts> => {
    const plain = factsOf(instance, engineRun())
    return plain.paused ? { ...plain, paused: await o.instances.isPaused(instance) } : plain
  }
  const change = (name: string, action: string): void =>
    hub.emit({ kind: 'volume', name, action, at: clock.now() })

  return {
    id: options.id,
    driver: 'local',
    capabilities,
    info: (call) =>
      run(call, 'the look at the local engine', async () => ({
        version: release(),
        apiVersion: '1',
        endpoint: options.root,
        run: engineRun(),
        details: { isolation: mode, limits: cgroups === null ? 'none' : 'cgroups' },
      })),
    listInstances: (call) =>
      run(call, 'the list of instances', async (o) => {
        const all = await loadAll(options, o)
        return Promise.all(
          all.filter((i) => i.meta.labels[LABEL.installation] !== undefined).map((i) => facts(o, i)),
        )
      }),
    inspectInstance: (nameOrId, call) =>
      run(call, `the look at ${nameOrId}`, async (o) => {
        const instance = await o.instances.load(nameOrId)
        return instance === null ? null : facts(o, instance)
      }),
    describeInstance: (id, call) =>
      run(call, `the look at ${id}`, async (o) => {
        const instance = await o.instances.load(id)
        return instance === null ? null : originOf(instance)
      }),
    createInstance: (request, call) =>
      run(call, `the creation of ${request.name}`, (o, w) => o.instances.create(request, w)),
    startInstance: (id, call) => run(call, `the start of ${id}`, (o, w) => o.instances.start(id, w)),
    stopInstance: (id, graceMs, call) =>
      run(call, `the stop of ${id}`, (o, w) => o.instances.stop(id, graceMs, w)),
    pauseInstance: (id, call) =>
      run(call, `the pause of ${id}`, async (o, w) => {
        need('pause', 'pause')
        await o.instances.pause(id, w)
      }),
    unpauseInstance: (id, call) =>
      run(call, `the resumption of ${id}`, async (o, w) => {
        need('pause', 'pause')
        await o.instances.unpause(id, w)
      }),
    removeInstance: (id, call) => run(call, `the removal of ${id}`, (o, w) => o.instances.remove(id, w)),
    exitCause: (known, call) =>
      run(call, `the look at the end of ${known.id}`, async (o) => {
        const state = (await o.instances.load(known.id))?.state
        // A reboot left no finish time: nobody can tell what came first.
        if (state === undefined || state.phase !== 'ended' || state.finishedAt === null) return null
        if (state.stopSent) return 'external'
        if (state.killed) return state.oomKilled ? null : 'external'
        return (state.exitCode ?? 255) < 128 ? 'own' : null
      }),
    listVolumes: (call) => run(call, 'the list of volumes', (o) => o.volumes.list()),
    inspectVolume: (name, call) =>
      run(call, `the look at the volume ${name}`, (o) => o.volumes.inspect(name)),
    createVolume: (request, call) =>
      run(call, `the creation of the volume ${request.name}`, async (o, w) => {
        w.fence()
        await o.volumes.create(request)
        change(request.name, 'create')
      }),
    removeVolume: (name, call) =>
      run(call, `the removal of the volume ${name}`, async (o, w) => {
        await locks.hold(LAYOUT_LOCK, () => o.volumes.remove(name, w.fence))
        change(name, 'remove')
      }),
    volumeIsEmpty: (name, call) =>
      run(call, `the look into the volume ${name}`, (o) => o.volumes.isEmpty(name)),
    inspectImage: (image, call) =>
      run(call, `the look at the image ${image}`, async () => {
        const found = await findImage(image, options.allowedHostPaths).catch((error: unknown) => {
          // Not to be had, which is as good as not there; a pull says why.
          if (error instanceof EngineError && error.effect === 'none') return null
          throw error
        })
        return found === null
          ? null
          : { id: image, entrypoint: [], command: DEFAULT_COMMAND, volumes: [], user: '' }
      }),
    pullImage: (image, _progress, call) =>
      run(call, `the pull of ${image}`, async () => {
        const why = await requireImage(image, options.allowedHostPaths).then(() => 'it is here', messageOf)
        throw refuse('unsupported', `the local engine pulls no images: ${why}`)
      }),
    exec: (id, request, call) =>
      run(call, `the exec in ${id}`, async (o) => {
        if (request.tty !== undefined) need('tty', 'give terminals')
        return o.reach.exec(id, request)
      }),
    logs: (id, request, call) =>
      run(call, `the logs of ${id}`, async (o): Promise<AsyncIterable<LogChunk>> => {
        const { dir, state } = await o.instances.require(id)
        const running = async (): Promise<boolean> => (await o.instances.load(id))?.state.phase === 'started'
        return readLogs(
          clock,
          { dir, startedAt: state.startedAt, logStart: state.logStart },
          request,
          running,
          call.signal,
        )
      }),
    stats: (id, call) => run(call, `the stats of ${id}`, (o) => o.reach.stats(id)),
    copyOut: (id, path, call) => run(call, `the copy out of ${id}`, (o, w) => o.reach.copyOut(id, path, w)),
    copyIn: (id, path, tar, call) =>
      run(call, `the copy into ${id}`, (o, w) => o.reach.copyIn(id, path, tar, w)),
    dial: (id, port, call) =>
      run(call, `the connection to port ${port} of ${id}`, async (o, w) => {
        need('dial', 'connect to ports')
        return o.reach.dial(id, port, w)
      }),
    events: (signal) => hub.events(signal),
    close: () => Promise.resolve(),
  }
}
