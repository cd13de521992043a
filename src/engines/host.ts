import type { Engine } from './engine.ts'

/** What is known of an engine's health; the last successful contact decides, never a guess. */
export interface EngineHealth {
  readonly ok: boolean
  /** In words, when it is not. */
  readonly error: string | null
  /** Since when this has been so, milliseconds since the epoch. */
  readonly since: number
}

/** The engines of this installation. One in the first version; the name is part of every row all the same. */
export interface EngineHost {
  readonly defaultId: string
  get(id: string): Engine | null
  all(): readonly Engine[]
  health(id: string): EngineHealth
}
