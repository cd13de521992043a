import { constants } from 'node:fs'
import { chmod, link, lstat, mkdir, open, realpath, symlink, unlink, utimes } from 'node:fs/promises'
import { dirname, join, sep } from 'node:path'
import type { Readable } from 'node:stream'
import { extract, type Header } from 'tar-stream'
import { feed, type Sink } from './feed.ts'
import { entryParts, rootDepth, UnsafeEntry } from './paths.ts'

export interface Unpacked {
  readonly files: number
  readonly bytes: number
  /** Devices, pipes and sockets: they mean nothing outside the sandbox. */
  readonly skipped: readonly string[]
}

export interface UnpackTarget {
  /** An existing directory; nothing is written outside it. */
  readonly within: string
  /** What the archive's first entry is called there; empty puts a directory's contents straight into it. */
  readonly rootName: string
  /** The archive's root must be a directory, or must be none. */
  readonly rootMust?: 'be a directory' | 'be no directory'
}

/** Permission bits that are kept; set-uid and the like do not leave a sandbox. */
const MODE_MASK = 0o777

async function lstatOrNull(path: string): Promise<Awaited<ReturnType<typeof lstat>> | null> {
  try {
    return await lstat(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

/** Makes the parents of a target one by one, and refuses to go through a link that leads out of `root`. */
async function ensureParents(root: string, parts: readonly string[], name: string): Promise<void> {
  let at = root
  for (const part of parts.slice(0, -1)) {
    at = join(at, part)
    const found = await lstatOrNull(at)
    if (found === null) await mkdir(at)
    else if (found.isSymbolicLink()) {
      const real = await realpath(at)
      if (real !== root && !real.startsWith(root.endsWith(sep) ? root : root + sep)) {
        throw new UnsafeEntry(name, `whose way goes through the link ${at} out of ${root}`)
      }
    } else if (!found.isDirectory()) throw new UnsafeEntry(name, `but ${at} is a file`)
  }
}

/** Takes away what is in the way of a file or link; never a directory. */
async function clear(path: string, name: string): Promise<void> {
  const found = await lstatOrNull(path)
  if (found === null) return
  if (found.isDirectory()) throw new UnsafeEntry(name, `but ${path} is a directory here`)
  await unlink(path)
}

async function writeFile(path: string, header: Header, body: Readable): Promise<void> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
  const file = await open(path, flags, 0o600)
  try {
    await file.writeFile(body)
    await file.chmod((header.mode ?? 0o644) & MODE_MASK)
    if (header.mtime !== undefined) await file.utimes(header.mtime, header.mtime)
  } finally {
    await file.close()
  }
}

/** Unpacks an archive below one directory. Rejects with `UnsafeEntry` for an entry that would leave it. */
export async function unpack(tar: Readable, target: UnpackTarget): Promise<Unpacked> {
  const root = await realpath(target.within)
  const directories: { path: string; header: Header }[] = []
  const skipped: string[] = []
  let files = 0
  let bytes = 0
  let depth: number | null = null

  const place = (name: string): string[] => {
    const parts = entryParts(name)
    const below = parts.slice(depth ?? 0)
    return target.rootName === '' ? below : [target.rootName, ...below]
  }
  const one = async (header: Header, body: Readable): Promise<void> => {
    const isRoot = depth === null
    if (isRoot) checkRoot(header, target)
    depth ??= target.rootName === '' && header.type !== 'directory' ? 0 : rootDepth(header.name)
    const parts = place(isRoot ? header.name.replace(/^\/+/, '') : header.name)
    const path = join(root, ...parts)
    if (parts.length > 0) await ensureParents(root, parts, header.name)
    switch (header.type) {
      case 'directory': {
        const found = await lstatOrNull(path)
        if (found === null) await mkdir(path)
        else if (!found.isDirectory()) await ensureParents(root, [...parts, '.'], header.name)
        if (found === null) directories.push({ path, header })
        return
      }
      case 'file':
      case 'contiguous-file':
        await clear(path, header.name)
        await writeFile(path, header, body)
        files += 1
        bytes += header.size ?? 0
        return
      case 'symlink':
        await clear(path, header.name)
        await symlink(header.linkname ?? '', path)
        return
      case 'link': {
        const parts2 = place(header.linkname ?? '')
        const source = join(root, ...parts2)
        await ensureParents(root, parts2, header.name)
        if ((await lstatOrNull(source))?.isFile() !== true)
          throw new UnsafeEntry(header.name, 'a link to something that is not in it')
        await clear(path, header.name)
        await link(source, path)
        return
      }
      case 'block-device':
      case 'character-device':
      case 'fifo':
      default:
        skipped.push(`${header.name} (${header.type ?? 'unknown'})`)
    }
  }

  const entries = extract()
  const reading = feed(tar, entries as unknown as Sink)
  // Awaited below; when an entry is refused first, its failure is only the echo of that.
  reading.catch(() => undefined)
  for await (const entry of entries) {
    await one(entry.header, entry as unknown as Readable)
    entry.resume()
  }
  await reading
  // Children first, and after all of them: writing into a directory changes its time, and it may be read-only.
  for (const { path, header } of directories.toReversed()) {
    await chmod(path, (header.mode ?? 0o755) & MODE_MASK)
    if (header.mtime !== undefined) await utimes(path, header.mtime, header.mtime)
  }
  return { files, bytes, skipped }
}

function checkRoot(header: Header, target: UnpackTarget): void {
  const isDirectory = header.type === 'directory'
  if (target.rootMust === 'be a directory' && !isDirectory)
    throw new Error(`${header.name} is not a directory`)
  if (target.rootMust === 'be no directory' && isDirectory) {
    throw new Error(`${header.name} is a directory, and ${join(target.within, target.rootName)} is a file`)
  }
}

export const parentOf = (path: string): string => dirname(path)
