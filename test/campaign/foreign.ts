import { Readable } from 'node:stream'
import { pack } from 'tar-stream'
import { rawDocker, rawJson } from '../support/docker-http.ts'
import { DOCKER_SOCKET } from '../support/docker-subject.ts'

/** An object of somebody else, made beside the server on this machine's Docker. */
export interface Foreign {
  readonly name: string
  /** What the engine tells of it, and for a volume its content. */
  readonly snapshot: () => Promise<string>
  readonly remove: () => Promise<void>
}

const docker = (method: string, path: string, body?: object): Promise<unknown> =>
  rawJson(DOCKER_SOCKET, method, path, body)

async function foreignContainer(
  image: string,
  name: string,
  labels: Readonly<Record<string, string>>,
  volume?: string,
): Promise<Foreign> {
  const HostConfig = volume === undefined ? {} : { Binds: [`${volume}:/data:nocopy`] }
  const body = { Image: image, Cmd: ['sleep', '100000'], Labels: labels, HostConfig }
  const made = (await docker('POST', `/containers/create?name=${name}`, body)) as { Id: string }
  await docker('POST', `/containers/${made.Id}/start`)
  return {
    name,
    snapshot: async () => JSON.stringify(await docker('GET', `/containers/${made.Id}/json`)),
    remove: async () => void (await rawDocker(DOCKER_SOCKET, 'DELETE', `/containers/${made.Id}?force=true`)),
  }
}

/** A volume with a file in it, held by nobody. */
async function foreignVolume(
  image: string,
  name: string,
  labels: Readonly<Record<string, string>>,
): Promise<Foreign> {
  await docker('POST', '/volumes/create', { Name: name, Labels: labels })
  const holder = async (): Promise<string> => {
    const body = { Image: image, Cmd: ['true'], HostConfig: { Binds: [`${name}:/data:nocopy`] } }
    return ((await docker('POST', '/containers/create', body)) as { Id: string }).Id
  }
  const archive = async (method: string, body?: Readable): Promise<string> => {
    const id = await holder()
    const path = `/containers/${id}/archive?path=/data`
    try {
      const { status, text } = await rawDocker(DOCKER_SOCKET, method, path, body)
      if (status !== 200) throw new Error(`the content of ${name}: Docker answered ${status}: ${text}`)
      return text
    } finally {
      await rawDocker(DOCKER_SOCKET, 'DELETE', `/containers/${id}?force=true`)
    }
  }
  const tar = pack()
  tar.entry({ name: 'theirs.txt', mtime: new Date(0) }, `the data of ${name}\n`)
  tar.finalize()
  await archive('PUT', Readable.from(tar))
  return {
    name,
    snapshot: async () =>
      `${JSON.stringify(await docker('GET', `/volumes/${name}`))} ${await archive('GET')}`,
    remove: async () => void (await rawDocker(DOCKER_SOCKET, 'DELETE', `/volumes/${name}`)),
  }
}

/** The labels of a container or a volume, as the engine tells them. */
export async function labelsOf(kind: 'containers' | 'volumes', ref: string): Promise<Record<string, string>> {
  if (kind === 'volumes')
    return ((await docker('GET', `/volumes/${ref}`)) as { Labels: Record<string, string> }).Labels
  const facts = (await docker('GET', `/containers/${ref}/json`)) as {
    Config: { Labels: Record<string, string> }
  }
  return facts.Config.Labels
}

/** Where the sandbox's instance number `number` would be. */
export const instanceName = (sandbox: string, number: number): string => `hf-${sandbox}-${number}`

export interface Planted {
  /** Takes away the one that sits on the name of the sandbox's next instance. */
  release(): Promise<void>
  /** What changed since all was planted, in words; empty when nothing did. */
  changes(): Promise<string[]>
  remove(): Promise<void>
}

/**
 * Beside one sandbox: strangers without labels, strangers with its very labels copied onto them, another
 * installation's, and one that sits on the name of its next instance.
 */
export async function plantForeign(
  image: string,
  sandbox: string,
  nextInstance: number,
  labels: { readonly instance: Readonly<Record<string, string>>; readonly volume: Record<string, string> },
): Promise<Planted> {
  const all: Foreign[] = []
  const remove = async (): Promise<void> => {
    for (const f of all.toReversed()) await f.remove()
  }
  try {
    all.push(await foreignVolume(image, `plain-${sandbox}`, {}))
    all.push(await foreignVolume(image, `copied-${sandbox}`, labels.volume))
    all.push(await foreignVolume(image, `workspace-${sandbox}`, {}))
    all.push(await foreignContainer(image, `plain-${sandbox}`, {}, `plain-${sandbox}`))
    all.push(await foreignContainer(image, `copied-${sandbox}`, labels.instance))
    const other = `other-${sandbox}`
    const others = { 'holdfast.dev/installation': 'aaaaaaaaaaaaaaaa', 'holdfast.dev/name': other }
    all.push(await foreignContainer(image, other, { ...labels.instance, ...others }))
    const squatter = await foreignContainer(image, instanceName(sandbox, nextInstance), {})
    all.push(squatter)
    const before = new Map<Foreign, string>()
    for (const f of all) before.set(f, await f.snapshot())
    return {
      async release() {
        before.delete(squatter)
        await squatter.remove()
      },
      async changes() {
        const out: string[] = []
        for (const [f, was] of before) {
          const now = await f.snapshot().catch(String)
          if (now !== was) out.push(`${f.name} was ${was} and is ${now}`)
        }
        return out
      },
      remove,
    }
  } catch (error) {
    await remove()
    throw error
  }
}
