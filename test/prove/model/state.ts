import type { Plane } from '../plane.ts'

/** What a user may have in mind for a sandbox. */
export type Wish = 'up' | 'stopped' | 'paused' | 'deleted'

/** One sandbox as its user knows it: what was acknowledged, and what others did to it since. */
export interface Subject {
  readonly id: string
  readonly always: boolean
  /** The last acknowledged wish; more than one while a later request was given up unanswered. */
  readonly wishes: Set<Wish>
  readonly env: Set<string>
  readonly expiry: Set<number | null>
  /** Since it was last asked to be up somebody else ended it, removed it, or its engine ended. */
  killed: boolean
  removed: boolean
  shaken: boolean
}

/** Acknowledged intents and nothing else. No step, no phase, no row of the control plane is in here. */
export interface Model {
  readonly subjects: Subject[]
  /** Uids of volumes whose purge was acknowledged, and claims for which one was given up unanswered. */
  readonly purged: Set<string>
  readonly maybePurged: Set<string>
  /** Creates that were given up unanswered: each may have been heard. */
  maybeCreated: number
  /** The latest time that the wall clock ever showed, ms. */
  latest: number
}

/** The control plane under test, and what the commands remember of the world. */
export interface Real {
  readonly plane: Plane
  /** Containers that others removed. */
  readonly removed: Set<string>
  /** Foreign containers that stand under names of ours. */
  readonly squatters: Set<string>
  /** Grows with each request and each object, so that each has a key or name of its own. */
  count: number
  readonly figures: Figures
}

export interface Figures {
  commands: number
  crashes: number
  faults: number
  acknowledged: number
}

export function createModel(plane: Plane): Model {
  return {
    subjects: [],
    purged: new Set(),
    maybePurged: new Set(),
    maybeCreated: 0,
    latest: plane.clock.now(),
  }
}

export function createSubject(id: string, always: boolean, env: string, expiry: number | null): Subject {
  return {
    id,
    always,
    wishes: new Set(['up']),
    env: new Set([env]),
    expiry: new Set([expiry]),
    killed: false,
    removed: false,
    shaken: false,
  }
}

/** Only this holds from now on, or, when it was not answered, this may hold as well. */
export function learn<T>(known: Set<T>, value: T, sure: boolean): void {
  if (sure) known.clear()
  known.add(value)
}

/** The wall clock was read: an expiry up to then may have come. */
export function note(model: Model, real: Real): void {
  model.latest = Math.max(model.latest, real.plane.clock.now())
}
