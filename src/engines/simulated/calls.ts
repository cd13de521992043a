import { sleep } from '../../model/clock.ts'
import { EngineError } from '../../model/facts.ts'
import type { Call } from '../engine.ts'
import { type CallName, type Fault, type FaultPlan, MUTATIONS, OK } from './faults.ts'
import type { World } from './world.ts'

/** One call of a handle: what it does, and what a cut-off create leaves behind. */
export interface Work<T> {
  readonly name: CallName
  readonly args: readonly unknown[]
  /** The fault is for lists, which it may falsify; every other fault is dealt with here. */
  readonly run: (fault: Fault) => T | Promise<T>
  /** True when the result says that something was changed; for the count of effects. */
  readonly changed?: (result: T) => boolean
  readonly tear?: () => void
}

export interface Caller {
  perform<T>(call: Call, work: Work<T>): Promise<T>
  /** From now on no call settles: the control plane that made them is gone. */
  sever(): void
  severed(): boolean
}

const never = <T>(): Promise<T> => new Promise(() => undefined)

export function createCaller(world: World, faults: FaultPlan, latencyMs: (name: CallName) => number): Caller {
  let gone = false

  const count = (counts: Map<string, number>, name: string): void =>
    void counts.set(name, (counts.get(name) ?? 0) + 1)
  const act = async <T>(work: Work<T>, fault: Fault = OK): Promise<T> => {
    const result = await work.run(fault)
    if (MUTATIONS.has(work.name) && (work.changed?.(result) ?? true)) count(world.effects, work.name)
    return result
  }
  /** Done later for nobody: what it then fails with is of no interest to anyone. */
  const actLate = <T>(work: Work<T>): void => {
    if (world.daemon.up) act(work).catch(() => undefined)
  }

  const suffer = async <T>(fault: Fault, work: Work<T>, doubt: EngineError['effect']): Promise<T> => {
    switch (fault.kind) {
      case 'error-before':
        throw new EngineError(
          fault.error ?? 'unreachable',
          'none',
          fault.message ?? `${work.name}: simulated, before`,
        )
      case 'error-after':
        await act(work)
        throw new EngineError(
          fault.error ?? 'timeout',
          doubt,
          fault.message ?? `${work.name}: simulated, after`,
        )
      case 'late':
        world.clock.after(fault.afterMs, () => actLate(work))
        throw new EngineError('timeout', doubt, `${work.name}: simulated, late`)
      case 'hang':
        return never()
      case 'torn':
        work.tear?.()
        throw new EngineError('timeout', doubt, `${work.name}: simulated, cut off`)
      case 'crash':
        if (fault.effect === 'after') await act(work)
        return never()
      case 'ok':
      case 'stale-list':
      case 'partial-list':
        return act(work, fault)
    }
  }

  const attempt = async <T>(call: Call, work: Work<T>): Promise<T> => {
    const mutates = MUTATIONS.has(work.name)
    const latency = latencyMs(work.name)
    if (latency > 0) await sleep(world.clock, latency, call.signal)
    if (!world.daemon.up) throw new EngineError('unreachable', 'none', 'the daemon does not answer')
    if (mutates) ask(call)
    return suffer(faults.before(work.name, work.args), work, mutates ? 'unknown' : 'none')
  }

  return {
    perform<T>(call: Call, work: Work<T>): Promise<T> {
      if (gone) return never()
      count(world.calls, work.name)
      if (call.signal?.aborted === true) {
        return Promise.reject(new EngineError('aborted', 'none', `${work.name} was aborted before it began`))
      }
      return limited(
        world,
        call,
        work,
        () => attempt(call, work),
        () => gone,
      )
    },
    sever: () => void (gone = true),
    severed: () => gone,
  }
}

function ask(call: Call): void {
  try {
    call.fence?.()
  } catch (cause) {
    if (cause instanceof EngineError) throw cause
    throw new EngineError('fenced', 'none', cause instanceof Error ? cause.message : 'fenced', { cause })
  }
}

/** Holds a call to its limit, its signal and the daemon's life. */
function limited<T>(
  world: World,
  call: Call,
  work: Work<T>,
  attempt: () => Promise<T>,
  gone: () => boolean,
): Promise<T> {
  const doubt = MUTATIONS.has(work.name) ? 'unknown' : 'none'
  return new Promise<T>((resolve, reject) => {
    let settled = false
    const settle = (how: () => void): void => {
      if (settled) return
      settled = true
      cancel()
      offDown()
      call.signal?.removeEventListener('abort', onAbort)
      if (!gone()) how()
    }
    const refuse = (kind: EngineError['kind'], message: string): void =>
      settle(() => reject(new EngineError(kind, doubt, message)))
    const onAbort = (): void => refuse('aborted', `${work.name} was aborted on its way`)
    const cancel = world.clock.after(call.limitMs, () =>
      refuse('timeout', `${work.name} took longer than ${call.limitMs} ms`),
    )
    const offDown = world.onDown(() => refuse('unreachable', `${work.name}: the daemon went away`))
    call.signal?.addEventListener('abort', onAbort, { once: true })
    attempt().then(
      (value) => settle(() => resolve(value)),
      (error: unknown) => settle(() => reject(asEngineError(error, work.name, doubt))),
    )
  })
}

function asEngineError(error: unknown, name: CallName, effect: EngineError['effect']): EngineError {
  if (error instanceof EngineError) return error
  return new EngineError(
    'failed',
    effect,
    `${name}: ${error instanceof Error ? error.message : String(error)}`,
    { cause: error },
  )
}
