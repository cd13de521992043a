import { closeSync, openSync } from 'node:fs'
import { mkdir, rename, stat, writeFile } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { type Clock, sleep } from '../../model/clock.ts'
import type { EngineRun } from '../../model/facts.ts'
import type { Ids } from '../../model/ids.ts'
import type { CreateInstance } from '../engine.ts'
import type { Cgroups } from './cgroup.ts'
import { errnoOf, isAbsent, type Locks, refuse, type Work } from './errors.ts'
import { checkName, discard, exists, runTool, syncDirectory, writeDurably } from './files.ts'
import { DEFAULT_COMMAND, ensureSkeleton, requireImage } from './image.ts'
import { launch } from './launch.ts'
import { LOG_FILES, logSizes } from './logs.ts'
import {
  baseEnvironment,
  checkEnvironment,
  checkUser,
  findProgram,
  type Ground,
  imageTree,
  prepareLinks,
  prepareMounts,
  resetStatus,
  resolveUser,
  sourcesOf,
  writeEnvironment,
} from './prepare.ts'
import {
  bootId,
  isAlive,
  namespaceProcesses,
  type ProcessIdentity,
  type ProcessStat,
  signal,
  signalGroup,
  statOf,
  taggedProcesses,
} from './proc.ts'
import {
  FRESH,
  type Instance,
  instanceId,
  type Meta,
  readInstance,
  readStatus,
  type State,
  writeState,
} from './records.ts'
import { ensurePoint, find, type Tree } from './tree.ts'

export interface InstanceContext {
  readonly ground: Ground
  readonly clock: Clock
  readonly ids: Ids
  readonly cgroups: Cgroups | null
  readonly locks: Locks
  /** Says that something happened to an instance. */
  readonly notify: (name: string, id: string, action: string) => void
  /** Watches a running instance for its end. */
  readonly watch: (instance: Instance, init: ProcessIdentity) => void
}

export interface Instances {
  /** As it is now: an end that was not recorded yet is recorded first. Null when absent. */
  load(nameOrId: string): Promise<Instance | null>
  require(id: string): Promise<Instance>
  create(request: CreateInstance, work: Work): Promise<{ id: string }>
  start(id: string, work: Work): Promise<void>
  stop(id: string, graceMs: number, work: Work): Promise<void>
  pause(id: string, work: Work): Promise<void>
  unpause(id: string, work: Work): Promise<void>
  remove(id: string, work: Work): Promise<void>
  /** Makes ready on the host what a start mounts. */
  prepare(instance: Instance): Promise<{ tree: Tree; workingDir: string }>
  workplace(instance: Instance, tree: Tree, asked: string | null): Promise<string>
  isPaused(instance: Instance): Promise<boolean>
  processes(instance: Instance): Promise<ProcessStat[]>
}

/** The lock that creation of instances and removal of volumes share. */
export const LAYOUT_LOCK = 'layout'
/** How long a killed instance may take to go, milliseconds: more means that the kernel holds on to it. */
const KILL_LIMIT_MS = 10_000
/** How long starting may have to stop every process while new ones are born, rounds. */
const STOP_ROUNDS = 50

export function engineRun(): EngineRun {
  return { engine: 'local', boot: bootId() }
}

function checkMounts(request: CreateInstance): void {
  const seen = new Set<string>()
  for (const { path } of request.mounts) {
    const inner = ['/proc', '/sys', '/dev'].some((p) => path === p || path.startsWith(`${p}/`))
    if (!path.startsWith('/') || posix.normalize(path) !== path || path === '/' || inner)
      throw refuse('invalid', `nothing can be mounted at "${path}"`)
    if (seen.has(path)) throw refuse('invalid', `two mounts at ${path}`)
    seen.add(path)
  }
}

export function createInstances(context: InstanceContext): Instances {
  const { ground, clock, ids, cgroups, locks } = context
  const { layout, mode } = ground

  async function processes(instance: Instance): Promise<ProcessStat[]> {
    const { init } = instance.state
    // The session of a dead leader says nothing: its number can belong to strangers by now.
    const session = init !== null && instance.state.boot === bootId() && isAlive(init) ? init.pid : null
    if (mode === 'none') return taggedProcesses(session, `HOLDFAST_INSTANCE_TAG=${instance.meta.tag}`)
    return init === null ? [] : namespaceProcesses(init)
  }

  /** What a dead instance left on record. */
  async function ending(instance: Instance): Promise<State> {
    const { state, dir, meta } = instance
    const over: State = { ...state, phase: 'ended', paused: false }
    // Another boot: nobody saw the end, and the pids in the record mean nothing now.
    if (state.boot !== bootId()) return { ...over, exitCode: null, finishedAt: null, killed: true }
    const status = await readStatus(dir)
    if (status === 'aborted') return FRESH
    const oom = ((await cgroups?.oomKills(meta.name)) ?? 0) > 0
    const at = status === null ? clock.now() : (await stat(join(dir, 'status'))).mtimeMs
    // The file system's clock ticks coarser than ours.
    const finishedAt = Math.max(Math.ceil(at), state.startedAt ?? 0)
    const exitCode = status ?? 137
    return { ...over, exitCode, finishedAt, killed: status === null, oomKilled: oom && exitCode === 137 }
  }

  async function settle(nameOrId: string): Promise<Instance | null> {
    const instance = await readInstance(layout, nameOrId)
    if (instance === null || instance.state.phase !== 'started' || instance.state.init === null)
      return instance
    if (instance.state.boot === bootId() && isAlive(instance.state.init)) return instance
    if (mode === 'none') for (const left of await processes(instance)) signal(left, 'SIGKILL')
    const state = await ending(instance)
    await writeState(instance.dir, state)
    await cgroups?.remove(instance.meta.name)
    context.notify(instance.meta.name, instance.meta.id, 'die')
    return { ...instance, state }
  }

  async function load(nameOrId: string): Promise<Instance | null> {
    const instance = await readInstance(layout, nameOrId)
    if (instance === null || instance.state.phase !== 'started' || instance.state.init === null)
      return instance
    if (instance.state.boot === bootId() && isAlive(instance.state.init)) return instance
    try {
      return await locks.hold(`settle/${instance.meta.name}`, () => settle(nameOrId))
    } catch (error) {
      if (isAbsent(error) && !(await exists(instance.dir))) return null // removed in the middle
      throw error
    }
  }

  async function require(id: string): Promise<Instance> {
    const instance = await load(id)
    if (instance === null) throw refuse('not-found', `there is no instance ${id}`)
    return instance
  }

  /** One change at a time for each instance. */
  const exclusively = <T>(id: string, change: (instance: Instance) => Promise<T>): Promise<T> =>
    locks.hold(`instance/${id}`, async () => change(await require(id)))

  async function seed(request: CreateInstance, tree: Tree): Promise<void> {
    for (const mount of request.mounts) {
      if (!mount.seed || mount.source.kind !== 'volume') continue
      const content = mode === 'none' ? null : await find(tree, mount.path)
      const data = await ground.volumes.data(mount.source.name)
      if (content?.kind !== 'directory' || data === null) continue
      const copied = await runTool('cp', ['-a', '--', `${content.source}/.`, `${data}/`], {
        limitMs: 3_600_000,
      })
      if (copied.code !== 0)
        throw refuse('failed', `the image's ${mount.path} could not be copied: ${copied.stderr}`)
    }
  }

  async function furnish(dir: string, meta: Meta): Promise<void> {
    for (const sub of ['upper', 'work', 'root']) await mkdir(join(dir, sub), { recursive: true, mode: 0o755 })
    if (mode !== 'none') {
      await mkdir(join(dir, 'upper/etc'), { mode: 0o755 })
      await writeFile(join(dir, 'upper/etc/hostname'), `${meta.hostname}\n`)
      await writeFile(
        join(dir, 'upper/etc/hosts'),
        `127.0.0.1 localhost ${meta.hostname}\n::1 localhost ip6-localhost\n`,
      )
    }
    await writeDurably(join(dir, 'meta.json'), JSON.stringify(meta))
    await writeState(dir, FRESH)
  }

  async function create(request: CreateInstance, work: Work): Promise<{ id: string }> {
    checkName(request.name, 'an instance')
    checkMounts(request)
    checkEnvironment(request.env)
    checkUser(mode, request.user)
    const image = await requireImage(request.image, ground.allowed)
    if (mode === 'none' && image.kind !== 'host')
      throw refuse('unsupported', 'without isolation there is only the image "host"')
    await sourcesOf(ground, request.mounts)
    const conflict = (): Error => refuse('conflict', `there is an instance named ${request.name}`)
    if (await exists(join(layout.instances, request.name))) throw conflict()
    const { entrypoint, name, labels, env, limits, mounts, workingDir, user, hostname } = request
    const argv = entrypoint.length > 0 ? entrypoint : DEFAULT_COMMAND
    const skeleton = await ensureSkeleton(layout, ids, ground.view)
    const meta: Meta = {
      id: instanceId(name, ids.next()),
      name,
      labels,
      image: request.image,
      argv,
      env,
      limits,
      mounts,
      workingDir,
      user,
      hostname,
      skeleton,
      tag: ids.next(),
      createdAt: clock.now(),
    }
    work.fence()
    const making = join(layout.making, ids.next())
    const place = join(layout.instances, name)
    await mkdir(making, { mode: 0o700 })
    try {
      await furnish(making, meta)
      await seed(request, imageTree(ground, image, skeleton, join(making, 'upper')))
      await locks.hold(LAYOUT_LOCK, async () => {
        await sourcesOf(ground, mounts)
        work.signal.throwIfAborted()
        work.fence()
        await rename(making, place)
      })
    } catch (error) {
      await discard(layout, ids, making)
      if (errnoOf(error) === 'ENOTEMPTY' || errnoOf(error) === 'EEXIST') throw conflict()
      throw error
    }
    await syncDirectory(layout.instances)
    context.notify(name, meta.id, 'create')
    return { id: meta.id }
  }

  /** The working directory, made when it is missing, as other engines do. With mode `none` a place on the host. */
  async function workplace(instance: Instance, tree: Tree, asked: string | null): Promise<string> {
    if (mode !== 'none') return asked === null || asked === '' ? '/' : ensurePoint(tree, asked, 'directory')
    const mount = tree.mounts.find((m) => m.path === '/sandbox') ?? tree.mounts[0]
    if (asked === null || asked === '') return mount?.source ?? join(instance.dir, 'home')
    const found = await find(tree, asked)
    if (found?.kind !== 'directory') throw refuse('invalid', `there is no directory ${asked}`)
    return found.source
  }

  async function prepare(instance: Instance): Promise<{ tree: Tree; workingDir: string }> {
    const image = await requireImage(instance.meta.image, ground.allowed)
    if (mode !== 'none') {
      const tree = await prepareMounts(ground, instance, image)
      return { tree, workingDir: await workplace(instance, tree, instance.meta.workingDir) }
    }
    const sources = await sourcesOf(ground, instance.meta.mounts)
    await prepareLinks(instance, sources)
    const tree: Tree = { layers: ['/'], mounts: sources }
    return { tree, workingDir: await workplace(instance, tree, instance.meta.workingDir) }
  }

  async function run(instance: Instance, work: Work): Promise<void> {
    const { dir, meta } = instance
    const { tree, workingDir } = await prepare(instance)
    const { owner, home } = await resolveUser(mode, tree, meta.user)
    const env = baseEnvironment(ground, instance, home)
    const program = meta.argv[0] ?? ''
    if ((await findProgram(tree, program, env, workingDir)) === null)
      throw refuse('invalid', `the image ${meta.image} has no program "${program}" that can be run`)
    await writeEnvironment(dir, env)
    await resetStatus(dir)
    const logStart = await logSizes(dir)
    const logs = LOG_FILES.map((name) => openSync(join(dir, name), 'a', 0o666))
    try {
      const [out = -1, err = -1] = logs
      const launched = await launch(
        {
          mode,
          dir,
          argv: meta.argv,
          hostname: meta.hostname,
          workingDir,
          user: owner,
          stdio: ['ignore', out, err],
          detached: true,
          async enter(init) {
            if (cgroups === null || mode === 'none') return
            await cgroups.limit(meta.name, meta.limits, init.pid)
          },
          async ready(init, job) {
            const startedAt = Math.max(clock.now(), (instance.state.startedAt ?? 0) + 1)
            await writeState(dir, {
              ...FRESH,
              phase: 'started',
              init,
              work: job,
              boot: bootId(),
              startedAt,
              logStart,
            })
          },
        },
        work,
      )
      context.watch(instance, launched.init)
      launched.child.once('exit', () => void load(meta.id).catch(() => undefined)) // only a hint; the next look tells
    } catch (error) {
      // Nothing of it ran, so what held before holds still.
      await writeState(dir, instance.state)
      await cgroups?.remove(meta.name)
      throw error
    } finally {
      for (const fd of logs) closeSync(fd)
    }
    context.notify(meta.name, meta.id, 'start')
  }

  /** Waits until process 1, and with it everything of the instance, is gone. False when the time is over first. */
  async function gone(init: ProcessIdentity, limitMs: number, work: Work): Promise<boolean> {
    const end = clock.monotonic() + limitMs
    for (let pause = 5; isAlive(init); pause = Math.min(pause * 2, 100)) {
      const left = end - clock.monotonic()
      if (left <= 0) return false
      await sleep(clock, Math.min(pause, left), work.signal)
    }
    return true
  }

  async function kill(instance: Instance, work: Work): Promise<void> {
    const { init } = instance.state
    if (instance.state.phase !== 'started' || init === null) return
    const all = mode === 'none' ? await processes(instance) : [init]
    if (mode === 'none') signalGroup(init, 'SIGKILL')
    for (const one of [...all, init]) signal(one, 'SIGKILL')
    // A frozen process dies only when it is thawed.
    if (instance.state.paused && cgroups?.has('freezer')) await cgroups.thaw(instance.meta.name)
    if (!(await gone(init, KILL_LIMIT_MS, work)))
      throw new Error(`${instance.meta.name} is still there ${KILL_LIMIT_MS} ms after a kill`)
  }

  /** With STOP signals: until a round finds nobody new, because a process may be born while others are stopped. */
  async function stopAll(instance: Instance): Promise<void> {
    for (let round = 0; round < STOP_ROUNDS; round++) {
      const moving = (await processes(instance)).filter(
        (p) => p.pid !== instance.state.init?.pid && p.state !== 'T' && p.state !== 't',
      )
      if (moving.length === 0) return
      for (const one of moving) signal(one, 'SIGSTOP')
      await sleep(clock, 2)
    }
    throw new Error(`${instance.meta.name} makes processes faster than they can be stopped`)
  }

  async function thaw(instance: Instance): Promise<void> {
    if (cgroups?.has('freezer') && mode !== 'none') await cgroups.thaw(instance.meta.name)
    else for (const one of await processes(instance)) signal(one, 'SIGCONT')
    await writeState(instance.dir, { ...instance.state, paused: false })
  }

  async function isPaused({ state, meta }: Instance): Promise<boolean> {
    if (state.phase !== 'started' || !state.paused) return false
    if (cgroups?.has('freezer') && mode !== 'none') return cgroups.isFrozen(meta.name)
    return state.work !== null && statOf(state.work.pid)?.state === 'T'
  }

  return {
    load,
    require,
    create,
    prepare,
    workplace,
    processes,
    isPaused,
    start: (id, work) =>
      exclusively(id, async (instance) => {
        work.signal.throwIfAborted()
        work.fence()
        if (instance.state.phase === 'started') return
        await run(instance, work)
      }),
    stop: (id, graceMs, work) =>
      exclusively(id, async (instance) => {
        work.fence()
        const { init, phase } = instance.state
        if (phase !== 'started' || init === null) return
        const stopping: Instance = { ...instance, state: { ...instance.state, stopSent: true } }
        await writeState(instance.dir, stopping.state)
        if (instance.state.paused) await thaw(stopping)
        if (stopping.state.work !== null) signal(stopping.state.work, 'SIGTERM')
        if (!(await gone(init, graceMs, work))) {
          work.fence()
          await kill({ ...stopping, state: { ...stopping.state, paused: false } }, work)
        }
        await load(id)
      }),
    pause: (id, work) =>
      exclusively(id, async (instance) => {
        if (instance.state.phase !== 'started') throw refuse('conflict', `${id} is not running`)
        work.fence()
        if (await isPaused(instance)) return
        await writeState(instance.dir, { ...instance.state, paused: true })
        if (cgroups?.has('freezer') && mode !== 'none')
          await cgroups.freeze(instance.meta.name, async () => (await processes(instance)).map((p) => p.pid))
        else await stopAll(instance)
        context.notify(instance.meta.name, id, 'pause')
      }),
    unpause: (id, work) =>
      exclusively(id, async (instance) => {
        if (instance.state.phase !== 'started') throw refuse('conflict', `${id} is not running`)
        work.fence()
        if (!instance.state.paused) return
        await thaw(instance)
        context.notify(instance.meta.name, id, 'unpause')
      }),
    remove: (id, work) =>
      locks.hold(`instance/${id}`, async () => {
        const instance = await load(id)
        if (instance === null) return
        work.fence()
        if (instance.state.phase === 'started')
          await writeState(instance.dir, { ...instance.state, stopSent: true })
        await kill(instance, work)
        await load(id)
        work.fence()
        await discard(layout, ids, instance.dir)
        context.notify(instance.meta.name, id, 'remove')
      }),
  }
}
