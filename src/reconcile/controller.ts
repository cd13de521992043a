/** What the API may ask of the reconciler: to look at a key, never to do something. */
export interface Controller {
  /** Enqueues a key (`sandbox/<id>` or `volume/<uid>`) ahead of background work, and interrupts a pull that is no longer wanted. */
  kick(key: string): void
  /** Resolves when the key was reconciled once more from now on, or after `limitMs`; used by waiting calls, never for correctness. */
  settled(key: string, limitMs: number): Promise<void>
  /** True after the first pass over everything that was found at start-up. */
  readonly recovered: boolean
  /** True once a list of each engine succeeded since the start, and what the first one showed to differ was looked at. */
  readonly surveyed: boolean
  /** Figures for /metrics. */
  stats(): ControllerStats
}

export interface ControllerStats {
  readonly queued: number
  readonly running: number
  readonly steps: Readonly<Record<string, number>>
  readonly failures: number
  readonly passes: number
}

export { sandboxKey, volumeKey } from '../model/keys.ts'
