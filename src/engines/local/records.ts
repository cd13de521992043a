import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { EngineRun, InstanceFacts } from '../../model/facts.ts'
import type { Limits } from '../../model/records.ts'
import type { CreateMount, InstanceOrigin } from '../engine.ts'
import { isAbsent } from './errors.ts'
import { DEFAULT_COMMAND } from './image.ts'
import { type Layout, readText, writeDurably } from './files.ts'
import type { ProcessIdentity } from './proc.ts'

/** What an instance is: written once, before it becomes visible. */
export interface Meta {
  readonly id: string
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly image: string
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly limits: Limits
  readonly mounts: readonly CreateMount[]
  readonly workingDir: string | null
  readonly user: string | null
  readonly hostname: string
  /** The shared lower layers that it was made on. */
  readonly skeleton: string
  /** A random value that its processes carry in their environment (mode `none`: how they are found). */
  readonly tag: string
  readonly createdAt: number
}

/** Where an instance is in its life: written durably before each change that it speaks of. */
export interface State {
  readonly phase: 'created' | 'started' | 'ended'
  readonly init: ProcessIdentity | null
  readonly work: ProcessIdentity | null
  /** What writes its output to its log files, and ends a moment after it. */
  readonly loggers: readonly ProcessIdentity[]
  readonly boot: string | null
  /** Tells the instance's directory from a copy of it, as it was when this run began; absent in older records. */
  readonly place?: string | null
  readonly startedAt: number | null
  readonly finishedAt: number | null
  readonly exitCode: number | null
  readonly oomKilled: boolean
  readonly paused: boolean
  /** A stop or kill was sent through the engine during this run. */
  readonly stopSent: boolean
  /** Ended, and process 1 recorded no status: somebody killed the whole. */
  readonly killed: boolean
  /** Sizes of the two logs when this run began: what is older than its start lies before. */
  readonly logStart: readonly [number, number]
}

export const FRESH: State = {
  phase: 'created',
  init: null,
  work: null,
  loggers: [],
  boot: null,
  place: null,
  startedAt: null,
  finishedAt: null,
  exitCode: null,
  oomKilled: false,
  paused: false,
  stopSent: false,
  killed: false,
  logStart: [0, 0],
}

export interface Instance {
  readonly dir: string
  readonly meta: Meta
  readonly state: State
}

/** The id of an instance begins with its name, so that it is found without a search; the rest is never reused. */
export const instanceId = (name: string, unique: string): string => `${name}@${unique}`

export async function readInstance(layout: Layout, nameOrId: string): Promise<Instance | null> {
  const at = nameOrId.lastIndexOf('@')
  const name = at < 0 ? nameOrId : nameOrId.slice(0, at)
  if (name === '' || name.includes('/') || name.startsWith('.')) return null
  const dir = join(layout.instances, name)
  const [meta, state] = [await readText(join(dir, 'meta.json')), await readText(join(dir, 'state.json'))]
  // Removal renames the whole directory away, so a missing file means a missing instance.
  if (meta === null || state === null) return null
  const found: Instance = { dir, meta: JSON.parse(meta) as Meta, state: JSON.parse(state) as State }
  return at < 0 || found.meta.id === nameOrId ? found : null
}

export async function instanceNames(layout: Layout): Promise<string[]> {
  return (await readdir(layout.instances)).toSorted()
}

/** The same through a rename, another one for a copy; null when the directory is gone. */
export async function placeOf(dir: string): Promise<string | null> {
  try {
    const { dev, ino } = await stat(dir)
    return `${dev}:${ino}`
  } catch (error) {
    if (isAbsent(error)) return null
    throw error
  }
}

export async function writeState(dir: string, state: State): Promise<void> {
  await writeDurably(join(dir, 'state.json'), JSON.stringify(state))
}

/** The status that process 1 wrote: a number, `aborted` when the workload was never let go, or null for none. */
export async function readStatus(dir: string): Promise<number | 'aborted' | null> {
  const first = ((await readText(join(dir, 'status'))) ?? '').split('\n')[0]?.trim() ?? ''
  if (first === '') return null
  return first === 'aborted' ? 'aborted' : Number(first)
}

export function factsOf(instance: Instance, run: EngineRun): InstanceFacts {
  const { meta, state } = instance
  return {
    id: meta.id,
    name: meta.name,
    labels: meta.labels,
    state: state.phase === 'started' ? 'running' : 'stopped',
    paused: state.phase === 'started' && state.paused,
    createdAt: meta.createdAt,
    startedAt: state.startedAt,
    finishedAt: state.finishedAt,
    exitCode: state.exitCode,
    oomKilled: state.oomKilled,
    mounts: meta.mounts.map((m) => ({
      path: m.path,
      volume: m.source.kind === 'volume' ? m.source.name : null,
      readOnly: m.readOnly,
    })),
    run,
  }
}

/** What it was made from. The default command and one that says the same run the same. */
export function originOf({ meta }: Instance): InstanceOrigin {
  const { image, argv, env, limits, workingDir, user } = meta
  const isDefault = JSON.stringify(argv) === JSON.stringify(DEFAULT_COMMAND)
  return {
    image,
    entrypoint: isDefault ? [] : argv,
    env,
    limits,
    workingDir,
    user,
    mounts: meta.mounts.map(({ path, readOnly, source }) => ({ path, readOnly, source })),
    imageKnown: true,
  }
}
