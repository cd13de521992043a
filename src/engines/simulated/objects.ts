import type { ImageFacts, InstanceFacts, VolumeFacts } from '../../model/facts.ts'
import type { CreateInstance, LogChunk } from '../engine.ts'
import type { Tree } from './files.ts'
import type { Process } from './process.ts'

export interface SimMount {
  readonly path: string
  /** The volume's name; null for a host path. */
  readonly volume: string | null
  readonly host: string | null
  readonly readOnly: boolean
}

export interface SimContainer {
  readonly id: string
  readonly name: string
  readonly request: CreateInstance
  readonly image: SimImage
  readonly createdAt: number
  readonly mounts: readonly SimMount[]
  /** The writable layer, with the image's files in it. */
  readonly layer: Tree
  readonly log: LogChunk[]
  /** Told of every new line and of the end. */
  readonly watchers: Set<() => void>
  readonly execs: Set<Process>
  readonly ports: Set<number>
  process: Process | null
  state: 'created' | 'running' | 'exited'
  paused: boolean
  startedAt: number | null
  finishedAt: number | null
  exitCode: number | null
  oomKilled: boolean
  /** Whether its last run was ended through the engine; null when the engine was not there to see. */
  endedBy: 'external' | 'own' | null
  /** The engine says that it runs, and nothing can be done with it. */
  zombie: boolean
}

export interface SimVolume {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly createdAt: number
  readonly tree: Tree
}

export interface SimImage extends ImageFacts {
  readonly name: string
  readonly env: Readonly<Record<string, string>>
  readonly labels: Readonly<Record<string, string>>
  readonly tree: Tree
}

export function volumeFacts(volume: SimVolume): VolumeFacts {
  return { name: volume.name, labels: volume.labels, createdAt: volume.createdAt }
}

export function instanceFacts(c: SimContainer, run: InstanceFacts['run']): InstanceFacts {
  return {
    id: c.id,
    name: c.name,
    labels: c.request.labels,
    state: c.state === 'running' ? 'running' : 'stopped',
    paused: c.paused,
    createdAt: c.createdAt,
    startedAt: c.startedAt,
    finishedAt: c.state === 'running' ? null : c.finishedAt,
    exitCode: c.state === 'running' ? null : c.exitCode,
    oomKilled: c.oomKilled,
    mounts: c.mounts.map(({ path, volume, readOnly }) => ({ path, volume, readOnly })),
    run,
  }
}
