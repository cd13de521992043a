import type { Limits } from '../../model/records.ts'
import type { Call, InstanceOrigin } from '../engine.ts'
import { DEFAULT_PIDS_LIMIT } from './create.ts'
import { list, type Images } from './images.ts'
import type { Instances } from './instances.ts'
import type { ContainerInspect, ImageInspect, MountRequest } from './types.ts'

/** What a container was made from: the reverse of `createBody`, without what the engine took from the image. */
export async function describeContainer(
  instances: Pick<Instances, 'look'>,
  images: Pick<Images, 'look'>,
  id: string,
  rest: () => Call,
): Promise<InstanceOrigin | null> {
  const found = await instances.look(id, rest())
  if (found === null) return null
  const image = found.Image === undefined ? null : await images.look(found.Image, rest())
  return toOrigin(found, image)
}

export function toOrigin(found: ContainerInspect, image: ImageInspect | null): InstanceOrigin {
  const config = found.Config ?? {}
  const base = image?.Config ?? {}
  const inherited = new Set(base.Env ?? [])
  const env = (config.Env ?? []).filter((entry) => !inherited.has(entry)).map(pair)
  return {
    image: config.Image ?? found.Image ?? '',
    entrypoint: entrypointOf(config, base),
    env: Object.fromEntries(env),
    limits: limitsOf(found.HostConfig ?? {}),
    mounts: (found.HostConfig?.Mounts ?? []).flatMap(toMount),
    workingDir: own(config.WorkingDir, base.WorkingDir),
    user: own(config.User, base.User),
    imageKnown: image !== null,
  }
}

type Programs = Pick<NonNullable<ContainerInspect['Config']>, 'Entrypoint' | 'Cmd'>

/** One of our own leaves no command behind it; the image's own comes with the image's command. */
function entrypointOf(config: Programs, base: Programs): readonly string[] {
  const mine = [...list(config.Entrypoint), ...list(config.Cmd)]
  const theirs = [...list(base.Entrypoint), ...list(base.Cmd)]
  return JSON.stringify(mine) === JSON.stringify(theirs) ? [] : mine
}

function pair(entry: string): readonly [string, string] {
  const at = entry.indexOf('=')
  return at < 0 ? [entry, ''] : [entry.slice(0, at), entry.slice(at + 1)]
}

const own = (value: string | undefined, inherited: string | undefined): string | null =>
  value === undefined || value === '' || value === inherited ? null : value

function limitsOf(host: NonNullable<ContainerInspect['HostConfig']>): Limits {
  const { Memory: memory = 0, NanoCpus: cpus = 0, PidsLimit: pids } = host
  return {
    ...(cpus > 0 ? { cpuMillis: Math.round(cpus / 1_000_000) } : {}),
    ...(memory > 0 ? { memoryBytes: memory } : {}),
    ...(typeof pids === 'number' && pids > 0 && pids !== DEFAULT_PIDS_LIMIT ? { pids } : {}),
  }
}

function toMount(mount: MountRequest): InstanceOrigin['mounts'] {
  const { Type: type, Source: source = '', Target: path, ReadOnly: readOnly = false } = mount
  if (type === 'volume') return [{ path, readOnly, source: { kind: 'volume', name: source } }]
  return type === 'bind' ? [{ path, readOnly, source: { kind: 'host', path: source } }] : []
}
