import { mkdir, readdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../model/clock.ts'
import type { VolumeFacts } from '../../model/facts.ts'
import type { Ids } from '../../model/ids.ts'
import type { CreateVolume } from '../engine.ts'
import { errnoOf, refuse } from './errors.ts'
import { checkName, discard, exists, type Layout, readText, syncDirectory, writeDurably } from './files.ts'
import { isEmptyDirectory } from './image.ts'
import { instanceNames, readInstance } from './records.ts'

/** Volumes are directories: `data` is what is mounted, `meta.json` what is known of it. */
export interface Volumes {
  list(): Promise<readonly VolumeFacts[]>
  inspect(name: string): Promise<VolumeFacts | null>
  create(request: CreateVolume): Promise<void>
  /** Must run under the lock that instance creation also takes, or a mount could be missed. */
  remove(name: string, fence: () => void): Promise<void>
  isEmpty(name: string): Promise<boolean>
  /** The directory behind a volume, or null when there is none. */
  data(name: string): Promise<string | null>
}

export function createVolumes(layout: Layout, clock: Clock, ids: Ids): Volumes {
  const dirOf = (name: string): string => join(layout.volumes, name)

  async function inspect(name: string): Promise<VolumeFacts | null> {
    if (name === '' || name.includes('/') || name.startsWith('.')) return null
    const text = await readText(join(dirOf(name), 'meta.json'))
    return text === null ? null : (JSON.parse(text) as VolumeFacts)
  }

  async function holders(name: string): Promise<string[]> {
    const found: string[] = []
    for (const instance of await instanceNames(layout)) {
      const mounts = (await readInstance(layout, instance))?.meta.mounts ?? []
      if (mounts.some((m) => m.source.kind === 'volume' && m.source.name === name)) found.push(instance)
    }
    return found
  }

  return {
    inspect,
    async list() {
      const all = await Promise.all((await readdir(layout.volumes)).toSorted().map(inspect))
      return all.filter((v) => v !== null) as VolumeFacts[]
    },
    async create({ name, labels }) {
      checkName(name, 'a volume')
      if (await exists(dirOf(name))) return
      const making = join(layout.making, ids.next())
      await mkdir(making, { mode: 0o700 })
      await mkdir(join(making, 'data'), { mode: 0o755 })
      const facts: VolumeFacts = { name, labels, createdAt: clock.now() }
      await writeDurably(join(making, 'meta.json'), JSON.stringify(facts))
      try {
        await rename(making, dirOf(name))
      } catch (error) {
        // Somebody made it at the same moment: theirs stands.
        if (errnoOf(error) !== 'ENOTEMPTY' && errnoOf(error) !== 'EEXIST') throw error
        await discard(layout, ids, making)
      }
      await syncDirectory(layout.volumes)
    },
    async remove(name, fence) {
      if ((await inspect(name)) === null) return
      const users = await holders(name)
      if (users.length > 0) throw refuse('conflict', `the volume ${name} is mounted by ${users.join(', ')}`)
      fence()
      await discard(layout, ids, dirOf(name))
    },
    async isEmpty(name) {
      if ((await inspect(name)) === null) throw refuse('not-found', `there is no volume ${name}`)
      return isEmptyDirectory(join(dirOf(name), 'data'))
    },
    async data(name) {
      return (await inspect(name)) === null ? null : join(dirOf(name), 'data')
    },
  }
}
