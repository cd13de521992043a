import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../model/clock.ts'
import type { EngineRun } from '../../model/facts.ts'
import type { Cgroups } from './cgroup.ts'
import { isAbsent, type Locks, refuse } from './errors.ts'
import { exists } from './files.ts'
import { TAG_VARIABLE } from './launch.ts'
import { drainLogs } from './logs.ts'
import type { Ground } from './prepare.ts'
import {
  bootId,
  isAlive,
  namespaceProcesses,
  type ProcessStat,
  signal,
  statOf,
  taggedProcesses,
} from './proc.ts'
import { FRESH, type Instance, placeOf, readInstance, readStatus, type State, writeState } from './records.ts'

export interface LookContext {
  readonly ground: Ground
  readonly clock: Clock
  readonly cgroups: Cgroups | null
  readonly locks: Locks
  /** Says that something happened to an instance. */
  readonly notify: (name: string, id: string, action: string) => void
}

/** How instances are found, and how the end of one gets on record: nobody watches while the server is away. */
export interface Look {
  /** As it is now: an end that was not recorded yet is recorded first. Null when absent. */
  load(nameOrId: string): Promise<Instance | null>
  require(id: string): Promise<Instance>
  /** Writes more about a running instance; one that has ended meanwhile is returned as it is. */
  amend(instance: Instance, change: Partial<State>): Promise<Instance>
  processes(instance: Instance): Promise<ProcessStat[]>
  isPaused(instance: Instance): Promise<boolean>
}

/** The lock of whoever writes an instance's state; held for moments only, so that looking never waits for a stop. */
export const settling = (name: string): string => `settle/${name}`

export function engineRun(): EngineRun {
  return { engine: 'local', boot: bootId() }
}

export function createLook(context: LookContext): Look {
  const { ground, clock, cgroups, locks } = context
  const { layout, mode } = ground

  async function processes(instance: Instance): Promise<ProcessStat[]> {
    const { init } = instance.state
    // The session of a dead leader says nothing: its number can belong to strangers by now.
    const session = init !== null && instance.state.boot === bootId() && isAlive(init) ? init.pid : null
    if (mode === 'none') return taggedProcesses(session, `${TAG_VARIABLE}=${instance.meta.tag}`)
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

  /** True while its process lives. */
  async function lives({ state, dir, meta }: Instance): Promise<boolean> {
    if (state.init === null || state.boot !== bootId() || !isAlive(state.init)) return false
    const place = await placeOf(dir)
    if (state.place == null || place === null || state.place === place) return true
    // Its volumes are those of the other directory: what it writes would not be found here.
    const text = `the processes of ${meta.name} run on the directory that ${dir} was copied from. Nothing is done to them and to this copy: stop them where they were started`
    throw refuse('failed', text)
  }

  async function settle(nameOrId: string): Promise<Instance | null> {
    const instance = await readInstance(layout, nameOrId)
    if (instance === null || instance.state.phase !== 'started' || instance.state.init === null)
      return instance
    if (await lives(instance)) return instance
    if (mode === 'none') for (const left of await processes(instance)) signal(left, 'SIGKILL')
    await drainLogs(clock, instance.state.boot === bootId() ? instance.state.loggers : [])
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
    if (await lives(instance)) return instance
    try {
      return await locks.hold(settling(instance.meta.name), () => settle(nameOrId))
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

  async function amend(instance: Instance, change: Partial<State>): Promise<Instance> {
    const { id, name } = instance.meta
    return locks.hold(settling(name), async () => {
      const now = await settle(id)
      if (now === null) throw refuse('not-found', `there is no instance ${id}`)
      if (now.state.phase !== 'started') return now
      const state = { ...now.state, ...change }
      await writeState(now.dir, state)
      return { ...now, state }
    })
  }

  async function isPaused({ state, meta }: Instance): Promise<boolean> {
    if (state.phase !== 'started' || !state.paused) return false
    if (cgroups?.has('freezer') && mode !== 'none') return cgroups.isFrozen(meta.name)
    return state.work !== null && statOf(state.work.pid)?.state === 'T'
  }

  return { load, require, amend, processes, isPaused }
}
