import type { Engine } from '../engines/engine.ts'
import type { EngineHost } from '../engines/host.ts'
import type { Clock } from '../model/clock.ts'
import type { Ids } from '../model/ids.ts'
import type { SandboxRecord, StepKind } from '../model/records.ts'
import type { Store } from '../store/store.ts'

/** The least of a logger that the reconciler needs; pino fits. Values must hold no secret. */
export interface Log {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

/** What others want to know of the reconciler's doings. */
export interface Hooks {
  /** An instance is seen running after it was not, or after a start-up. */
  readonly instanceUp?: (record: SandboxRecord, engine: Engine) => void
  /** An instance is about to be stopped or removed, or was found gone. */
  readonly instanceDown?: (engineId: string) => void
  /** Each engine was listed once since the start, or could not be: what is less urgent may begin. */
  readonly looked?: () => void
  /** Events were committed: whoever follows them may look. */
  readonly committed?: () => void
  /** A named point of a step, for fault tests: the built program can die here. */
  readonly point?: (kind: StepKind, point: StepPoint) => void
}

export type StepPoint = 'before-intent' | 'after-intent' | 'after-effect' | 'after-outcome'

/** Everything a pass needs, passed in; nothing of it is a singleton. */
export interface Context {
  readonly store: Store
  readonly engines: EngineHost
  readonly clock: Clock
  readonly ids: Ids
  readonly log: Log
  readonly hooks: Hooks
  /** Put into each instance's environment, for information only. */
  readonly endpoint: string
  /** Enqueues a key now, or later. */
  readonly enqueue: (key: string, options?: { background?: boolean; delayMs?: number }) => void
  /** The engine did not answer: its health is looked at. */
  readonly suspect: (engine: string, error: string) => void
  readonly figures: Figures
  /** Ends a step that waits long for what is no longer wanted, and looks at the key. */
  readonly kick: (key: string) => void
  /** Aborted when no further step may begin. */
  readonly stopping: AbortSignal
  /** Waits for the engine's token: a bound on mutations per second that no bug can pass. */
  readonly token: (engine: string) => Promise<void>
}

/** Counters for /metrics and for tests that look for stillness. */
export interface Figures {
  readonly steps: Map<string, number>
  failures: number
  passes: number
}
