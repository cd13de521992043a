/** What engines tell. Container states are four, never three: running (with `paused`), stopped, absent, unknown. */

/** What tells one run of an engine, and one boot of its machine, from the next (DESIGN §4, exits). */
export interface EngineRun {
  /** Changes whenever the engine's restart can have ended its containers; null where the engine cannot tell. */
  readonly engine: string | null
  /** The machine's boot id; null where it cannot be read (a remote engine). */
  readonly boot: string | null
}

/**
 * True when both are the same run. An engine that can tell neither its run nor its boot always says the same: its exits
 * then count as the workload's own, since counting them as the engine's would run finished jobs again for ever.
 */
export function sameRun(a: EngineRun | null, b: EngineRun | null): boolean {
  if (a === null || b === null) return false
  return a.engine === b.engine && a.boot === b.boot
}

export interface MountFacts {
  readonly path: string
  /** The engine's volume name, or null for a host path. */
  readonly volume: string | null
  readonly readOnly: boolean
}

/** An instance as the engine tells of it. */
export interface InstanceFacts {
  /** The engine's own id: what removals go by. */
  readonly id: string
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  /** `stopped` covers created-never-started (then `startedAt` is null), exited and dead. */
  readonly state: 'running' | 'stopped'
  readonly paused: boolean
  /** Milliseconds since the epoch; the engine's clock. */
  readonly createdAt: number
  readonly startedAt: number | null
  readonly finishedAt: number | null
  /** Only meaningful when stopped after a start; null when the engine cannot tell. */
  readonly exitCode: number | null
  readonly oomKilled: boolean
  readonly mounts: readonly MountFacts[]
  /** The run of the engine under which all of this held. */
  readonly run: EngineRun
}

export interface VolumeFacts {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  /** Milliseconds since the epoch, to the engine's own precision. */
  readonly createdAt: number
}

export interface ImageFacts {
  readonly id: string
  readonly entrypoint: readonly string[]
  readonly command: readonly string[]
  /** Paths that the image declares as `VOLUME`. */
  readonly volumes: readonly string[]
  readonly user: string
}

/** An observation that failed is `unknown`, and leads to no destructive step (DESIGN §1.5). */
export type Observed<T> =
  | { readonly known: true; readonly value: T; readonly at: number }
  | { readonly known: false; readonly error: string; readonly since: number }

export type EngineErrorKind =
  | 'unreachable'
  | 'timeout'
  | 'not-found'
  | 'conflict'
  | 'invalid'
  | 'image-missing'
  | 'denied'
  | 'disk-full'
  /** The engine keeps a leftover of a start that it was killed in, and cannot start this instance any more. */
  | 'wedged'
  | 'unsupported'
  | 'aborted'
  | 'fenced'
  | 'failed'

/**
 * An engine call that did not succeed. `effect` says what is known of its effect: `none` when the engine certainly
 * did nothing, `unknown` when it may have happened or may still happen.
 */
export class EngineError extends Error {
  readonly kind: EngineErrorKind
  readonly effect: 'none' | 'unknown'

  constructor(
    kind: EngineErrorKind,
    effect: 'none' | 'unknown',
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options)
    this.name = 'EngineError'
    this.kind = kind
    this.effect = effect
  }
}
