import type { EngineErrorKind, InstanceFacts, VolumeFacts } from '../../model/facts.ts'
import type { Engine, EngineEvent } from '../engine.ts'

export type CallName = Exclude<keyof Engine, 'id' | 'driver' | 'capabilities' | 'events' | 'close'>

/** What befalls one call. */
export type Fault =
  | { readonly kind: 'ok' }
  /** Nothing is done, and the error says so. */
  | { readonly kind: 'error-before'; readonly error?: EngineErrorKind; readonly message?: string }
  /** It is done, and the answer is lost: effect `unknown`. */
  | { readonly kind: 'error-after'; readonly error?: EngineErrorKind; readonly message?: string }
  /** It times out at once, and is done `afterMs` later, whoever is in charge then. */
  | { readonly kind: 'late'; readonly afterMs: number }
  /** Nothing is done and nothing answers, until the call's own limit. */
  | { readonly kind: 'hang' }
  /** A create is cut off half way: its volumes are there, one half seeded, it is not. Elsewhere as `error-before`, effect `unknown`. */
  | { readonly kind: 'torn' }
  /** The control plane dies before or after the effect: the call never settles. */
  | { readonly kind: 'crash'; readonly effect: 'before' | 'after' }
  /** A list as it was at the last call of this list, or empty. Breaks the contract on purpose. */
  | { readonly kind: 'stale-list' }
  /** A list without the objects that are not kept, taken for whole. Breaks the contract on purpose. */
  | { readonly kind: 'partial-list'; readonly keep: (facts: InstanceFacts | VolumeFacts) => boolean }

/** Asked before every call with its method and arguments, the frame left out. */
export interface FaultPlan {
  before(call: CallName, args: readonly unknown[]): Fault
  /** What becomes of an event. `hold` gives it after the next one. */
  event?(event: EngineEvent): 'deliver' | 'drop' | 'double' | 'hold'
}

export const OK: Fault = { kind: 'ok' }
export const noFaults: FaultPlan = { before: () => OK }

/** Methods that change something: what a fence guards and `effects` counts. */
export const MUTATIONS: ReadonlySet<CallName> = new Set<CallName>([
  'createInstance',
  'startInstance',
  'stopInstance',
  'pauseInstance',
  'unpauseInstance',
  'removeInstance',
  'createVolume',
  'removeVolume',
  'pullImage',
  'copyIn',
])
