import { once } from 'node:events'
import { connect } from 'node:net'
import { basename } from 'node:path'
import type { Duplex, Readable } from 'node:stream'
import type { Clock } from '../../model/clock.ts'
import type { ExecRequest, ExecStream, InstanceStats } from '../engine.ts'
import type { Cgroups } from './cgroup.ts'
import { copyInBy, copyOutBy, type RunTar } from './copy.ts'
import { type Locks, messageOf, refuse, type Work } from './errors.ts'
import { execIn, type ExecTarget, streamOf, type Tools } from './exec.ts'
import { requireImage } from './image.ts'
import type { Instances } from './instances.ts'
import { launch } from './launch.ts'
import { openPipes } from './pipes.ts'
import {
  baseEnvironment,
  checkEnvironment,
  checkUser,
  findProgram,
  isDefaultUser,
  type Ground,
  instanceTree,
  resetStatus,
  resolveUser,
  writeEnvironment,
} from './prepare.ts'
import { type Listeners, listenersOf, residentBytes, TICKS_PER_SECOND } from './proc.ts'
import type { Instance } from './records.ts'
import { find, type Tree } from './tree.ts'

/** What reaches into instances. */
export interface Reach {
  exec(id: string, request: ExecRequest): Promise<ExecStream>
  copyOut(id: string, path: string, work: Work): Promise<Readable>
  copyIn(id: string, path: string, tar: Readable, work: Work): Promise<void>
  dial(id: string, port: number, work: Work): Promise<Duplex>
  stats(id: string): Promise<InstanceStats>
}

export interface ReachContext {
  readonly ground: Ground
  readonly clock: Clock
  readonly cgroups: Cgroups | null
  readonly locks: Locks
  readonly tools: Tools
  readonly instances: Instances
}

export function createReach(context: ReachContext): Reach {
  const { ground, clock, cgroups, locks, tools, instances } = context
  const { mode, layout } = ground

  async function running(id: string): Promise<Instance> {
    const instance = await instances.require(id)
    if (instance.state.phase !== 'started') throw refuse('conflict', `${id} is not running`)
    return instance
  }

  async function treeOf(instance: Instance): Promise<Tree> {
    return instanceTree(ground, instance, await requireImage(instance.meta.image, ground.allowed))
  }

  /** Busybox has a `script` too, which tells no exit status. */
  async function terminalOf(tree: Tree): Promise<'inside' | 'outside'> {
    const script = mode === 'none' ? null : await findProgram(tree, 'script', {}, '/')
    return script !== null && script !== 'hidden' && basename(script.path) === 'script' ? 'inside' : 'outside'
  }

  async function target(
    instance: Instance,
    request: Pick<ExecRequest, 'workingDir' | 'user' | 'tty'>,
    limited: boolean,
  ): Promise<ExecTarget> {
    const { meta, state } = instance
    if (state.init === null) throw refuse('conflict', `${meta.id} is not running`)
    const user = request.user ?? meta.user
    const plain = mode !== 'none' && request.tty === undefined && isDefaultUser(mode, user)
    // Most execs need no look into the tree, and looking takes time.
    const tree: Tree = plain ? { layers: [], mounts: [] } : await treeOf(instance)
    const { owner, home } = await resolveUser(mode, tree, user)
    const asked = request.workingDir ?? meta.workingDir
    return {
      mode,
      init: state.init,
      making: layout.making,
      terminal: request.tty === undefined ? 'outside' : await terminalOf(tree),
      cgroupFiles:
        limited && mode !== 'none' && cgroups !== null ? cgroups.procsFiles(meta.name, meta.limits) : [],
      env: baseEnvironment(ground, instance, home),
      workingDir: mode === 'none' ? await instances.workplace(instance, tree, asked) : asked || '/',
      user: owner,
    }
  }

  /** A stopped instance's tree, set up for one `tar` in namespaces of its own. The lock is held until it has ended. */
  function still(instance: Instance, work: Work): RunTar {
    return (args, stdin) =>
      new Promise((resolve, reject) => {
        const job = async (): Promise<void> => {
          const now = await instances.require(instance.meta.id)
          if (now.state.phase === 'started')
            throw refuse('conflict', `${instance.meta.id} was started meanwhile`)
          await resetStatus(now.dir)
          const pipes = await openPipes(layout.making, stdin)
          const launching = launch(
            {
              mode,
              dir: now.dir,
              hostname: now.meta.hostname,
              tag: now.meta.tag,
              stdio: pipes.child,
              detached: false,
              furnish: async () => {
                const { tree } = await instances.prepare(now)
                const { home } = await resolveUser(mode, tree, null)
                await writeEnvironment(now.dir, baseEnvironment(ground, now, home), '/', ['tar', ...args])
                return { user: null, umount: null }
              },
              enter: () => Promise.resolve(),
              ready: () => Promise.resolve(),
            },
            work,
          )
          const { child } = await launching.finally(() => pipes.handed())
          const over = once(child, 'exit')
          resolve(streamOf(child, pipes, () => Promise.resolve()))
          await over
        }
        locks.hold(`instance/${instance.meta.id}`, job).catch(reject)
      })
  }

  /** Without isolation: the host's own `tar`, on the path behind the instance's. */
  function plain(tree: Tree, env: Readonly<Record<string, string>>): RunTar {
    return async (args, stdin) => {
      const path = args[1] ?? '/'
      const found = await find(tree, path)
      if (found?.kind !== 'directory') throw refuse('not-found', `there is no directory ${path}`)
      const none: ExecTarget = {
        mode,
        init: { pid: 0, start: '' },
        making: layout.making,
        terminal: 'outside',
        cgroupFiles: [],
        env,
        workingDir: '/',
        user: null,
      }
      return execIn(tools, none, {
        command: [tools.tar ?? 'tar', '-C', found.source, ...args.slice(2)],
        stdin,
      })
    }
  }

  async function tarOf(id: string, work: Work): Promise<RunTar> {
    const instance = await instances.require(id)
    if (mode === 'none') return plain(await treeOf(instance), baseEnvironment(ground, instance, '/'))
    if (instance.state.phase !== 'started') return still(instance, work)
    // Outside the instance's limits, so that a frozen one can be read too.
    const inside = await target(instance, { workingDir: '/', user: '0' }, false)
    return (args, stdin) => execIn(tools, inside, { command: ['tar', ...args], stdin })
  }

  async function connectTo(host: string, port: number, limitMs: number): Promise<Duplex> {
    const socket = connect({ host, port, allowHalfOpen: true })
    const cancel = clock.after(limitMs, () => socket.destroy(new Error(`no answer after ${limitMs} ms`)))
    try {
      await once(socket, 'connect')
      return socket
    } catch (error) {
      socket.destroy()
      throw refuse('failed', `port ${port} does not answer: ${messageOf(error)}`, error)
    } finally {
      cancel()
    }
  }

  return {
    async exec(id, request) {
      const instance = await running(id)
      checkUser(mode, request.user)
      checkEnvironment(request.env ?? {})
      if (await instances.isPaused(instance)) throw refuse('conflict', `${id} is paused`)
      return execIn(tools, await target(instance, request, true), request)
    },
    async copyOut(id, path, work) {
      return copyOutBy(await tarOf(id, work), path)
    },
    async copyIn(id, path, tar, work) {
      work.fence()
      await copyInBy(await tarOf(id, work), path, tar, mode === 'identity' || mode === 'bare')
    },
    async dial(id, port) {
      const instance = await running(id)
      const look = async (): Promise<Listeners> => listenersOf(await instances.processes(instance), port)
      const { own } = await look()
      // The network is the host's: only what this instance itself listens on may be reached through it.
      if (own === null) throw refuse('failed', `no process of ${id} listens on port ${port}`)
      const socket = await connectTo(own, port, DIAL_LIMIT_MS)
      // One that takes a single connection listens no more by now; a port that is somebody else's is another matter.
      if (!(await look()).foreign) return socket
      socket.destroy()
      throw refuse('failed', `port ${port} of ${id} changed hands`)
    },
    async stats(id) {
      const instance = await running(id)
      const all = await instances.processes(instance)
      const counted = mode === 'none' ? null : await cgroups?.memoryBytes(instance.meta.name)
      const resident = await Promise.all(all.map((p) => residentBytes(p.pid)))
      const ticks = all.reduce((sum, p) => sum + p.ticks, 0)
      const limited = mode !== 'none' && (cgroups?.has('memory') ?? false)
      return {
        at: clock.now(),
        cpuMs: (ticks * 1000) / TICKS_PER_SECOND,
        memoryBytes: counted ?? resident.reduce((a, b) => a + b, 0),
        memoryLimitBytes: limited ? (instance.meta.limits.memoryBytes ?? null) : null,
        pids: all.length,
      }
    },
  }
}

/** The port is on this machine: an answer that takes longer will not come, milliseconds. */
const DIAL_LIMIT_MS = 5_000
