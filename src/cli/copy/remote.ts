import { Readable } from 'node:stream'
import { posix } from 'node:path'
import { ApiError, type Client } from '@holdfast/client'
import { extract, type Header } from 'tar-stream'
import { feed, type Sink } from './feed.ts'
import { CliError, EXIT } from '../errors.ts'

/** Links followed to find what a path in a sandbox is; more means a circle. */
const MAX_LINKS = 20

/** The first entry of the archive of a path, or null when there is no such path. Only its head is read. */
async function firstEntry(client: Client, id: string, path: string): Promise<Header | null> {
  const leave = new AbortController()
  try {
    const tar = Readable.fromWeb(
      (await client.sandboxes.download(id, path, leave.signal)) as Parameters<typeof Readable.fromWeb>[0],
    )
    const entries = extract()
    // It ends when we leave after the first entry, which is no failure; a real one is told by the entries.
    feed(tar, entries as unknown as Sink).catch(() => undefined)
    for await (const entry of entries) return entry.header
    return null
  } catch (error) {
    if (error instanceof ApiError && error.code === 'PATH_NOT_FOUND') return null
    throw error
  } finally {
    leave.abort()
  }
}

/** What is at a path in a sandbox, links followed; needs nothing but the archive call, so it works on any image. */
export async function remoteKind(
  client: Client,
  id: string,
  path: string,
): Promise<'directory' | 'file' | 'absent'> {
  let at = path
  for (let i = 0; i < MAX_LINKS; i++) {
    if (at === '/') return 'directory'
    const head = await firstEntry(client, id, at)
    if (head === null) return 'absent'
    if (head.type === 'directory') return 'directory'
    if (head.type !== 'symlink') return 'file'
    at = posix.resolve(posix.dirname(at), head.linkname ?? '')
  }
  throw new CliError(EXIT.failed, `${path} is a circle of links.`)
}
