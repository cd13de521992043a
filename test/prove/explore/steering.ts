import { AsyncLocalStorage } from 'node:async_hooks'
import type { Call, Engine } from '../../../src/engines/engine.ts'
import { createSimulatedEngine } from '../../../src/engines/simulated/engine.ts'
import { type CallName, MUTATIONS, OK } from '../../../src/engines/simulated/faults.ts'
import type { World } from '../../../src/engines/simulated/world.ts'
import { EngineError } from '../../../src/model/facts.ts'
import type { Store } from '../../../src/store/store.ts'
import type { VirtualClock } from '../../support/virtual-clock.ts'
import type { Monitor } from '../monitor.ts'

/** What a call came to on the engine. */
type Result = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly error: unknown }

/** What a pass went by since it last read the rows: the rows, and the answers since. */
export interface Thread {
  readonly rows: string
  /** Tells whether a row has moved on since, also when it came back to what it was. */
  readonly versions: string
  readonly answers: string[]
}

/** A call that was sent and not answered. */
export interface Pending {
  readonly n: number
  readonly name: CallName
  readonly about: string
  readonly changes: boolean
  readonly sentAt: number
  readonly thread: Thread
  /** What it changed, or saw when it was sent; null before its effect. */
  result: Result | null
  readonly run: () => Promise<Result>
  readonly answer: (result: Result) => void
}

/** Holds every call between a control plane and its engine until somebody decides that it goes on. */
export interface Steering {
  /** While true every call is carried out and answered at once. */
  free: boolean
  readonly pending: Map<number, Pending>
  /** Changes whose process is dead or has given up waiting, and that may still be carried out. */
  readonly astray: Map<number, Pending>
  effect(p: Pending): Promise<void>
  answer(p: Pending, result: Result): void
  land(p: Pending): Promise<void>
  /** Their process has died. */
  orphan(): void
  between(life: { readonly engine: Engine; readonly store: Store; alive(): boolean }): {
    readonly engine: Engine
    readonly store: Store
  }
}

const never = <T>(): Promise<T> => new Promise(() => undefined)

export function createSteering(parts: {
  readonly world: World
  readonly clock: VirtualClock
  readonly monitor: Monitor
  /** The rows as they are now, as text. */
  readonly rows: () => string
  readonly versions: () => string
}): Steering {
  const { world, clock, monitor } = parts
  /** Carries out what is decided, also for processes that are long dead. */
  const hand = createSimulatedEngine(world, { id: 'sim' })
  const threads = new AsyncLocalStorage<Thread>()
  const pending = new Map<number, Pending>()
  const astray = new Map<number, Pending>()
  let count = 0

  function ask<T>(
    name: CallName,
    first: unknown,
    call: Call,
    alive: () => boolean,
    act: (call: Call) => Promise<T>,
  ): Promise<T> {
    if (!alive()) return never()
    const changes = MUTATIONS.has(name)
    try {
      if (changes) call.fence?.()
    } catch (cause) {
      return Promise.reject(new EngineError('fenced', 'none', String(cause), { cause }))
    }
    monitor.called(name, [first])
    const unlimited: Call = { limitMs: call.limitMs }
    if (steering.free) {
      monitor.answered(name, [first], OK)
      return act(unlimited)
    }
    const thread = threads.getStore() ?? { rows: '', versions: '', answers: [] }
    const about = typeof first === 'string' ? first : ((first as { name?: string } | undefined)?.name ?? '')
    return new Promise<T>((resolve, reject) => {
      const n = (count += 1)
      const over = (): void => {
        cancel()
        call.signal?.removeEventListener('abort', onAbort)
        pending.delete(n)
      }
      const giveUp = (kind: EngineError['kind']): void => {
        if (!pending.has(n)) return
        over()
        if (changes && p.result === null) astray.set(n, p)
        if (!alive()) return
        monitor.answered(name, [first], { kind: 'hang' })
        thread.answers.push(`${name} ${about}: ${kind}`)
        reject(new EngineError(kind, changes ? 'unknown' : 'none', `${name}: ${kind}`))
      }
      const onAbort = (): void => giveUp('aborted')
      const cancel = clock.after(call.limitMs, () => giveUp('timeout'))
      call.signal?.addEventListener('abort', onAbort, { once: true })
      const p: Pending = {
        n,
        name,
        about,
        changes,
        sentAt: clock.monotonic(),
        thread,
        result: null,
        run: () =>
          act(unlimited).then(
            (value): Result => ({ ok: true, value }),
            (error: unknown): Result => ({ ok: false, error }),
          ),
        answer(result) {
          over()
          monitor.answered(name, [first], OK)
          thread.answers.push(`${name} ${about}: ${tell(result)}`)
          if (result.ok) resolve(result.value as T)
          else reject(result.error)
        },
      }
      pending.set(n, p)
      // What a look shows is what was there when it was asked for, or something later.
      if (!changes) void p.run().then((result) => (p.result = result))
    })
  }

  const steering: Steering = {
    free: true,
    pending,
    astray,
    async effect(p) {
      p.result = await p.run()
      monitor.check()
    },
    answer: (p, result) => p.answer(result),
    async land(p) {
      astray.delete(p.n)
      // Whatever it comes to, nobody is told.
      await p.run()
      monitor.check()
    },
    orphan() {
      for (const p of pending.values()) if (p.changes && p.result === null) astray.set(p.n, p)
      pending.clear()
    },
    between(life) {
      const { engine, store } = life
      const isAlive = (): boolean => life.alive()
      return {
        store: {
          ...store,
          read(fn) {
            // Each pass begins with a look at the rows; what it asks for after that goes by them.
            threads.enterWith({ rows: parts.rows(), versions: parts.versions(), answers: [] })
            return store.read(fn)
          },
        },
        engine: {
          ...engine,
          inspectInstance: (id, call) =>
            ask('inspectInstance', id, call, isAlive, (c) => hand.inspectInstance(id, c)),
          inspectVolume: (name, call) =>
            ask('inspectVolume', name, call, isAlive, (c) => hand.inspectVolume(name, c)),
          volumeIsEmpty: (name, call) =>
            ask('volumeIsEmpty', name, call, isAlive, (c) => hand.volumeIsEmpty(name, c)),
          exitCause: (facts, call) =>
            ask('exitCause', facts.id, call, isAlive, (c) => hand.exitCause(facts, c)),
          listInstances: (call) => ask('listInstances', '', call, isAlive, (c) => hand.listInstances(c)),
          listVolumes: (call) => ask('listVolumes', '', call, isAlive, (c) => hand.listVolumes(c)),
          createInstance: (request, call) =>
            ask('createInstance', request, call, isAlive, (c) => hand.createInstance(request, c)),
          createVolume: (request, call) =>
            ask('createVolume', request, call, isAlive, (c) => hand.createVolume(request, c)),
          startInstance: (id, call) =>
            ask('startInstance', id, call, isAlive, (c) => hand.startInstance(id, c)),
          stopInstance: (id, grace, call) =>
            ask('stopInstance', id, call, isAlive, (c) => hand.stopInstance(id, grace, c)),
          removeInstance: (id, call) =>
            ask('removeInstance', id, call, isAlive, (c) => hand.removeInstance(id, c)),
          removeVolume: (name, call) =>
            ask('removeVolume', name, call, isAlive, (c) => hand.removeVolume(name, c)),
        },
      }
    },
  }
  return steering
}

/** A result as text, so that two can be compared. */
export function tell(result: Result | null): string {
  if (result === null) return 'none'
  if (result.ok) return JSON.stringify(result.value) ?? 'done'
  return result.error instanceof Error
    ? `${result.error.name}: ${result.error.message}`
    : String(result.error)
}
