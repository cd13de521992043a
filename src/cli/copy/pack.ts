import { createReadStream } from 'node:fs'
import { lstat, readdir, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pack, type Header, type Pack } from 'tar-stream'
import { feed, type Sink } from './feed.ts'

export interface PackOptions {
  /** Keep the numeric owner; else everything belongs to root, as `docker cp` does it. */
  readonly keepOwner: boolean
  readonly onFile: (bytes: number) => void
  readonly onSkip: (path: string, why: string) => void
}

/** What is known of an entry before it is written; the rest has defaults. */
type Entry = Partial<Header> & { name: string }
type Stat = Awaited<ReturnType<typeof lstat>>

const header = (name: string, stat: Stat, options: PackOptions): Entry => ({
  name,
  mode: Number(stat.mode) & 0o7777,
  mtime: stat.mtime,
  uid: options.keepOwner ? Number(stat.uid) : 0,
  gid: options.keepOwner ? Number(stat.gid) : 0,
})

function addPlain(tar: Pack, entry: Entry): Promise<void> {
  return new Promise((resolve, reject) => {
    tar.entry(entry, (error) => (error == null ? resolve() : reject(error)))
  })
}

/** At most `size` bytes of a file; an empty one is not opened, since a range cannot be empty. */
const contents = (path: string, size: number): AsyncIterable<Uint8Array> =>
  size === 0 ? Readable.from([]) : createReadStream(path, { end: size - 1 })

/** A file that grows meanwhile is cut at the size it had, one that shrinks fails the copy. */
async function addFile(tar: Pack, path: string, entry: Entry, size: number): Promise<void> {
  const taken = Promise.withResolvers<void>()
  const sink = tar.entry({ ...entry, type: 'file', size }, (error) =>
    error == null ? taken.resolve() : taken.reject(error),
  )
  await Promise.all([feed(contents(path, size), sink as unknown as Sink), taken.promise])
}

async function add(tar: Pack, path: string, name: string, options: PackOptions): Promise<void> {
  const stat = await lstat(path)
  const entry = header(name, stat, options)
  if (stat.isSymbolicLink())
    return addPlain(tar, { ...entry, type: 'symlink', linkname: await readlink(path) })
  if (stat.isFile()) {
    await addFile(tar, path, entry, Number(stat.size))
    options.onFile(Number(stat.size))
    return
  }
  if (!stat.isDirectory()) return options.onSkip(path, 'is neither a file, a directory nor a link')
  await addPlain(tar, { ...entry, type: 'directory' })
  await addContents(tar, path, name, options)
}

async function addContents(tar: Pack, path: string, name: string, options: PackOptions): Promise<void> {
  for (const child of (await readdir(path)).toSorted()) {
    await add(tar, join(path, child), name === '' ? child : `${name}/${child}`, options)
  }
}

/**
 * A tar stream of a local path under the given name; an empty name gives a directory's contents without itself.
 * Links are kept as links. Reads only as fast as it is read; an error while reading breaks the stream.
 */
export function packPath(path: string, name: string, options: PackOptions): Readable {
  const tar = pack()
  const fill = name === '' ? addContents(tar, path, '', options) : add(tar, path, name, options)
  fill.then(
    () => tar.finalize(),
    (error: unknown) => tar.destroy(error instanceof Error ? error : new Error(String(error))),
  )
  return Readable.from(tar as AsyncIterable<Uint8Array>, { objectMode: false })
}
