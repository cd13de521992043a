import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { gzipSync } from 'node:zlib'
import { extract } from 'tar-stream'

/**
 * The pull half of a registry, on loopback, where Docker asks for no TLS: it offers one image that the engine has
 * under as many tags as asked for, each of an image id of its own, so that each has really to be pulled.
 */
export interface Registry {
  /** A reference that no engine has yet. */
  offer(tag: string): string
  /** Manifests and layers that were asked for. */
  readonly served: number
  close(): Promise<void>
}

const MANIFEST_TYPE = 'application/vnd.docker.distribution.manifest.v2+json'
const CONFIG_TYPE = 'application/vnd.docker.container.image.v1+json'
const LAYER_TYPE = 'application/vnd.docker.image.rootfs.diff.tar.gzip'
const REPOSITORY = 'holdfast-test-pull'

const digestOf = (data: Buffer): string => `sha256:${createHash('sha256').update(data).digest('hex')}`

interface Blob {
  readonly type: string
  readonly data: Buffer
}

/** What `docker save` gives: files by name. */
async function savedImage(socketPath: string, image: string): Promise<Map<string, Buffer>> {
  const tar = await new Promise<Buffer>((resolve, reject) => {
    const req = request(
      { socketPath, path: `/images/${image}/get`, timeout: 60_000, agent: false },
      (res) => {
        const chunks: Buffer[] = []
        res.on('data', (chunk: Buffer) => chunks.push(chunk))
        res.on('error', reject)
        res.on('end', () =>
          res.statusCode === 200
            ? resolve(Buffer.concat(chunks))
            : reject(new Error(`saving ${image}: ${res.statusCode}`)),
        )
      },
    )
    req.on('timeout', () => req.destroy(new Error(`saving ${image}: no answer`)))
    req.on('error', reject)
    req.end()
  })
  const files = new Map<string, Buffer>()
  const entries = extract()
  Readable.from([tar]).pipe(entries)
  for await (const entry of entries) {
    const chunks: Buffer[] = []
    for await (const chunk of entry) chunks.push(chunk as Buffer)
    files.set(entry.header.name, Buffer.concat(chunks))
  }
  return files
}

/** Serves what the engine at this socket has as `image`. */
export async function startRegistry(socketPath: string, image: string): Promise<Registry> {
  const files = await savedImage(socketPath, image)
  const file = (name: string): Buffer => {
    const data = files.get(name)
    assert.ok(data, `the saved image holds no ${name}`)
    return data
  }
  const [saved] = JSON.parse(file('manifest.json').toString()) as { Config: string; Layers: string[] }[]
  assert.ok(saved, 'the saved image has no manifest')
  const config = JSON.parse(file(saved.Config).toString()) as { config: { Labels?: Record<string, string> } }

  const blobs = new Map<string, Blob>()
  const tags = new Map<string, string>()
  const keep = (data: Buffer, type: string): { mediaType: string; digest: string; size: number } => {
    const digest = digestOf(data)
    blobs.set(digest, { type, data })
    return { mediaType: type, digest, size: data.length }
  }
  const layers = saved.Layers.map((name) => keep(gzipSync(file(name)), LAYER_TYPE))
  let served = 0

  const server = createServer((req, res) => {
    const [, what, name = ''] = /^\/v2\/[^/]+\/(manifests|blobs)\/([^/?]+)$/.exec(req.url ?? '') ?? []
    if (req.url === '/v2/') return void res.writeHead(200).end('{}')
    const found = blobs.get(what === 'manifests' ? (tags.get(name) ?? name) : name)
    if (found === undefined) return void res.writeHead(404).end('{"errors":[]}')
    served++
    res.writeHead(200, {
      'content-type': found.type,
      'content-length': found.data.length,
      'docker-content-digest': digestOf(found.data),
    })
    res.end(req.method === 'HEAD' ? undefined : found.data)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo

  return {
    offer(tag) {
      const own = { ...config, config: { ...config.config, Labels: { ...config.config.Labels, tag } } }
      const manifest = {
        schemaVersion: 2,
        mediaType: MANIFEST_TYPE,
        config: keep(Buffer.from(JSON.stringify(own)), CONFIG_TYPE),
        layers,
      }
      tags.set(tag, keep(Buffer.from(JSON.stringify(manifest)), MANIFEST_TYPE).digest)
      return `127.0.0.1:${port}/${REPOSITORY}:${tag}`
    },
    get served() {
      return served
    },
    async close() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}
