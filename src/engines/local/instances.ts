import { sleep } from '../../model/clock.ts'
import type { Ids } from '../../model/ids.ts'
import type { CreateInstance } from '../engine.ts'
import { instanceMaker } from './create.ts'
import { refuse, type Work } from './errors.ts'
import { discard } from './files.ts'
import { createLook, type Look, type LookContext } from './look.ts'
import { type ProcessIdentity, isAlive, signal, signalGroup } from './proc.ts'
import type { Instance } from './records.ts'
import { createStarter, type Starter } from './start.ts'

export interface InstanceContext extends LookContext {
  readonly ids: Ids
  /** The host's `umount` as image `host` shows it, or null where it is elsewhere. */
  readonly umount: string | null
  /** Watches a running instance for its end. */
  readonly watch: (instance: Instance, init: ProcessIdentity) => void
}

export interface Instances extends Look, Pick<Starter, 'prepare' | 'workplace'> {
  create(request: CreateInstance, work: Work): Promise<{ id: string }>
  start(id: string, work: Work): Promise<void>
  stop(id: string, graceMs: number, work: Work): Promise<void>
  pause(id: string, work: Work): Promise<void>
  unpause(id: string, work: Work): Promise<void>
  remove(id: string, work: Work): Promise<void>
}

/** How long a killed instance may take to go, milliseconds: more means that the kernel holds on to it. */
const KILL_LIMIT_MS = 10_000
/** How long starting may have to stop every process while new ones are born, rounds. */
const STOP_ROUNDS = 50

export function createInstances(context: InstanceContext): Instances {
  const { ground, clock, ids, cgroups, locks } = context
  const { layout, mode } = ground
  const look = createLook(context)
  const starter = createStarter(context, look)

  /** One change at a time for each instance. */
  const exclusively = <T>(id: string, change: (instance: Instance) => Promise<T>): Promise<T> =>
    locks.hold(`instance/${id}`, async () => change(await look.require(id)))

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
    const all = mode === 'none' ? await look.processes(instance) : [init]
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
      const moving = (await look.processes(instance)).filter(
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
    else for (const one of await look.processes(instance)) signal(one, 'SIGCONT')
    await look.amend(instance, { paused: false })
  }

  return {
    ...look,
    create: instanceMaker(context),
    prepare: (instance) => starter.prepare(instance),
    workplace: (instance, tree, asked) => starter.workplace(instance, tree, asked),
    start: (id, work) =>
      exclusively(id, async (instance) => {
        work.signal.throwIfAborted()
        work.fence()
        if (instance.state.phase === 'started') return
        await starter.run(instance, work)
      }),
    stop: (id, graceMs, work) =>
      exclusively(id, async (instance) => {
        work.fence()
        const stopping = await look.amend(instance, { stopSent: true })
        const { init, phase, paused, work: job } = stopping.state
        if (phase !== 'started' || init === null) return
        if (paused) await thaw(stopping)
        if (job !== null) signal(job, 'SIGTERM')
        if (!(await gone(init, graceMs, work))) {
          work.fence()
          await kill(stopping, work)
        }
        await look.load(id)
      }),
    pause: (id, work) =>
      exclusively(id, async (instance) => {
        if (instance.state.phase !== 'started') throw refuse('conflict', `${id} is not running`)
        work.fence()
        if (await look.isPaused(instance)) return
        if ((await look.amend(instance, { paused: true })).state.phase !== 'started')
          throw refuse('conflict', `${id} is not running`)
        if (cgroups?.has('freezer') && mode !== 'none')
          await cgroups.freeze(instance.meta.name, async () =>
            (await look.processes(instance)).map((p) => p.pid),
          )
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
        const instance = await look.load(id)
        if (instance === null) return
        work.fence()
        await kill(await look.amend(instance, { stopSent: true }), work)
        await look.load(id)
        // Also those of a start that nobody lived to put on record.
        await cgroups?.remove(instance.meta.name)
        work.fence()
        await discard(layout, ids, instance.dir)
        context.notify(instance.meta.name, id, 'remove')
      }),
  }
}
