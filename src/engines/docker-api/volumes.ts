import { opendir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { extract } from 'tar-stream'
import { EngineError, type VolumeFacts } from '../../model/facts.ts'
import type { Call, CreateVolume } from '../engine.ts'
import { copyOut } from './archive.ts'
import { type Api, budget, unexpected } from './api.ts'
import { parseTime } from './time.ts'
import type { MountInspect, VolumeInspect } from './types.ts'
import { compareVersions } from './version.ts'

export interface Volumes {
  readonly list: (call: Call) => Promise<readonly VolumeFacts[]>
  readonly inspect: (name: string, call: Call) => Promise<VolumeFacts | null>
  readonly create: (request: CreateVolume, call: Call) => Promise<void>
  readonly remove: (name: string, call: Call) => Promise<void>
  readonly isEmpty: (name: string, call: Call) => Promise<boolean>
}

export function createVolumes(api: Api): Volumes {
  const look = async (name: string, call: Call): Promise<VolumeInspect | null> => {
    const what = `inspecting volume ${name}`
    const answer = await api.ask({ what, method: 'GET', path: `/volumes/${encodeURIComponent(name)}`, call })
    if (answer.ok) return answer.json as VolumeInspect
    if (answer.refusal.status === 404 && /no such volume/i.test(answer.refusal.message ?? '')) return null
    throw answer.error
  }

  return {
    async list(call) {
      const rest = budget(api.clock, call)
      const what = 'listing volumes'
      const answer = await api.get<{
        Volumes?: readonly VolumeInspect[] | null
        Warnings?: readonly string[] | null
      }>({
        what,
        method: 'GET',
        path: '/volumes',
        call: rest(),
      })
      // A volume plugin that does not answer is only a warning to the engine, and the list is then not whole.
      const warnings = answer.Warnings ?? []
      if (warnings.length > 0)
        throw new EngineError('failed', 'none', `${what}: the list is not whole: ${warnings.join('; ')}`)
      return Promise.all((answer.Volumes ?? []).map((volume) => toFacts(api, volume, rest())))
    },

    async inspect(name, call) {
      const rest = budget(api.clock, call)
      const volume = await look(name, rest())
      return volume === null ? null : toFacts(api, volume, rest())
    },

    async create(request, call) {
      const what = `creating volume ${request.name}`
      const json = { Name: request.name, Driver: 'local', Labels: request.labels }
      await api.get({ what, method: 'POST', path: '/volumes/create', json, mutation: true, call })
    },

    async remove(name, call) {
      const what = `removing volume ${name}`
      // Never forced: force removes the engine's record although the data stays, and takes no other use into account.
      const answer = await api.ask({
        what,
        method: 'DELETE',
        path: `/volumes/${encodeURIComponent(name)}`,
        mutation: true,
        call,
      })
      if (
        answer.ok ||
        (answer.refusal.status === 404 && /no such volume/i.test(answer.refusal.message ?? ''))
      )
        return
      throw answer.error
    },

    async isEmpty(name, call) {
      const rest = budget(api.clock, call)
      const volume = await look(name, rest())
      if (volume === null) throw new EngineError('not-found', 'none', `There is no volume ${name}`)
      return (await emptyOnDisk(api, volume)) ?? (await emptyByInstance(api, name, rest))
    },
  }
}

/** The first API version whose engines tell a volume's creation; earlier ones tell the last change of its top directory. */
const TRUE_CREATION_API = '1.42'

async function toFacts(api: Api, volume: VolumeInspect, call: Call): Promise<VolumeFacts> {
  const told = parseTime(volume.CreatedAt)
  if (typeof volume.Name !== 'string' || told === null)
    throw unexpected('reading a volume', 'it lacks its name or time of creation')
  const { engine } = await api.version(call)
  const old = compareVersions(engine.ApiVersion, TRUE_CREATION_API) < 0
  const born = old && isPlain(volume) ? await birthOf(api, volume) : null
  return { name: volume.Name, labels: { ...volume.Labels }, createdAt: born ?? told }
}

/** Made by the engine in a directory of its own, without options that would mount something else over it. */
function isPlain(volume: VolumeInspect): boolean {
  return volume.Driver === 'local' && Object.keys(volume.Options ?? {}).length === 0
}

/** When the volume's own directory was made, in whole seconds as the engine has them; null where it cannot be seen. */
async function birthOf(api: Api, volume: VolumeInspect): Promise<number | null> {
  if (api.connection.socketPath === null || volume.Mountpoint === undefined) return null
  try {
    const { birthtimeMs } = await stat(dirname(volume.Mountpoint))
    return birthtimeMs > 0 ? Math.floor(birthtimeMs / 1000) * 1000 : null
  } catch {
    // Not visible from here (another user, another machine behind the socket): the engine's word is all there is.
    return null
  }
}

const isNothing = (name: string): boolean => name === 'lost+found'

/** Null where the volume's directory cannot be looked into from here. */
async function emptyOnDisk(api: Api, volume: VolumeInspect): Promise<boolean | null> {
  if (api.connection.socketPath === null || volume.Mountpoint === undefined || !isPlain(volume)) return null
  try {
    for await (const entry of await opendir(volume.Mountpoint)) if (!isNothing(entry.name)) return false
    return true
  } catch {
    // Not visible from here: the other way decides.
    return null
  }
}

/** Looks into the volume through any container that mounts it, running or not. */
async function emptyByInstance(api: Api, name: string, rest: () => Call): Promise<boolean> {
  const what = `looking into volume ${name}`
  const holders = await api.get<readonly { Id: string; Mounts?: readonly MountInspect[] }[]>({
    what,
    method: 'GET',
    path: '/containers/json',
    query: { all: true, filters: JSON.stringify({ volume: [name] }) },
    call: rest(),
  })
  for (const holder of holders) {
    const mount = (holder.Mounts ?? []).find((m) => m.Type === 'volume' && m.Name === name)
    if (mount !== undefined) return holdsNothing(api, holder.Id, mount.Destination, rest())
  }
  throw new EngineError(
    'unsupported',
    'none',
    `${what}: no instance mounts it, and its directory cannot be seen from here`,
  )
}

async function holdsNothing(api: Api, id: string, path: string, call: Call): Promise<boolean> {
  const tar = await copyOut(api, id, `${path}/.`, call)
  const unpacked = extract()
  tar.on('error', (error) => unpacked.destroy(error))
  tar.pipe(unpacked)
  try {
    for await (const entry of unpacked) {
      entry.resume()
      const inside = entry.header.name.split('/').filter((part) => part !== '' && part !== '.')
      if (inside.length > 0 && !isNothing(inside[0] ?? '')) return false
    }
    return true
  } finally {
    tar.destroy()
  }
}
