import { closeSync, openSync, writeSync } from 'node:fs'
import { createHistory, type History, type Promised } from './model.ts'

/** Times are milliseconds since the epoch, on the one clock of this machine. */
export type Outcome = 'ok' | 'refused' | 'unknown'

/** One request of a client, with all of its tries under one key. */
export interface Op {
  readonly kind: 'op'
  readonly client: string
  /** Sandbox id, or `volume <claim>`. */
  readonly target: string
  readonly action: string
  /** What it sets, where that is more than the action: a round of the environment, an expiry. */
  readonly value: string | null
  readonly outcome: Outcome
  readonly status: number | null
  readonly begunAt: number
  readonly endedAt: number
  /** It may take effect after it ended, as long as the server that it was sent to lives. */
  readonly late: boolean
}

/** The server process that lived until now is dead. */
export interface Death {
  readonly kind: 'death'
  readonly at: number
}

/** What the nemesis did; `target` names a sandbox where one was struck. */
export interface Fault {
  readonly kind: 'fault'
  readonly what: string
  readonly target: string | null
  readonly begunAt: number
  readonly endedAt: number
}

/** One sandbox in one answered list. */
export interface SeenSandbox {
  readonly id: string
  readonly desired: string
  readonly reason: string
  readonly state: string
  readonly generation: number
  readonly observedGeneration: number
  readonly instance: number | null
  readonly engineId: string | null
  readonly createdAt: string
  readonly expiresAt: string | null
  readonly round: string | null
}

/** One list of everything, as the API answered it. */
export interface Look {
  readonly kind: 'look'
  readonly begunAt: number
  readonly endedAt: number
  readonly all: readonly SeenSandbox[]
}

export interface SeenEvent {
  readonly kind: 'event'
  readonly at: number
  readonly seq: number
  readonly subject: string
  readonly id: string
  readonly reason: string
}

/** The engine's own view of our instances: names, with those that run. */
export interface Sample {
  readonly kind: 'sample'
  readonly at: number
  readonly running: Readonly<Record<string, readonly string[]>>
}

export interface Still {
  readonly kind: 'still'
  readonly at: number
  readonly violations: number
}

export type Entry = Op | Death | Fault | Look | SeenEvent | Sample | Still

export interface SoakSandbox extends Promised {
  readonly policy: string
  readonly expires: boolean
  /** The nemesis may kill and remove its instances. */
  readonly prey: boolean
  /** Until then a command may end from outside: somebody else, or the nemesis, struck. */
  shakenUntil: number
  /** What it wants is not known to its client: it asks before it goes on. */
  unsure: boolean
  /** A delete was sent at least once. */
  deleteAsked: boolean
}

export interface SoakHistory extends History {
  readonly sandboxes: Map<string, SoakSandbox>
  readonly path: string
  readonly entries: readonly Entry[]
  add(entry: Entry): void
  close(): void
}

/** Everything that was asked and seen, kept in memory for the checks and written line by line for people. */
export function openSoakHistory(path: string): SoakHistory {
  const file = openSync(path, 'w')
  const entries: Entry[] = []
  return {
    ...createHistory(),
    sandboxes: new Map(),
    path,
    entries,
    add(entry) {
      entries.push(entry)
      writeSync(file, `${JSON.stringify(entry)}\n`)
    },
    close: () => closeSync(file),
  }
}
