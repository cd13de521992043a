import type { EngineRun, InstanceFacts, MountFacts } from '../../model/facts.ts'
import { unexpected } from './api.ts'
import { parseTime } from './time.ts'
import type { ContainerInspect, MountInspect } from './types.ts'

/** An inspect answer as facts. Throws `EngineError` when what identifies the container is missing from it. */
export function toFacts(what: string, inspect: ContainerInspect, run: EngineRun): InstanceFacts {
  const { Id: id, Name: name, State: state } = inspect
  const createdAt = parseTime(inspect.Created)
  if (
    typeof id !== 'string' ||
    id === '' ||
    typeof name !== 'string' ||
    state === undefined ||
    createdAt === null
  )
    throw unexpected(what, 'it lacks id, name, state or time of creation')
  const startedAt = parseTime(state.StartedAt)
  const running = state.Running
  const ended = !running && startedAt !== null
  return {
    id,
    name: name.replace(/^\//, ''),
    labels: { ...inspect.Config?.Labels },
    state: running ? 'running' : 'stopped',
    paused: running && state.Paused,
    createdAt,
    startedAt,
    finishedAt: ended ? endTime(state.FinishedAt, startedAt) : null,
    exitCode: ended ? state.ExitCode : null,
    oomKilled: state.OOMKilled,
    mounts: (inspect.Mounts ?? []).flatMap(toMount),
    run,
  }
}

/** The end is noted by the runtime and the start by the engine a little late: a short life can seem to end before it began. */
function endTime(finishedAt: string, startedAt: number): number | null {
  const at = parseTime(finishedAt)
  return at === null ? null : Math.max(at, startedAt)
}

function toMount(mount: MountInspect): readonly MountFacts[] {
  const common = { path: mount.Destination, readOnly: !mount.RW }
  if (mount.Type === 'volume') return [{ ...common, volume: mount.Name ?? null }]
  return mount.Type === 'bind' ? [{ ...common, volume: null }] : []
}

const FULL_ID = /^[0-9a-f]{64}$/

export const isFullId = (text: string): boolean => FULL_ID.test(text)

/**
 * True when the answer is about what was asked for: the engine also resolves the beginning of an id, and that is
 * another container than the one of this name.
 */
export function isAbout(inspect: ContainerInspect, nameOrId: string): boolean {
  return inspect.Id === nameOrId || inspect.Name === `/${nameOrId}` || inspect.Name === nameOrId
}
