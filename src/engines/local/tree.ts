import { chmod, chown, lstat, mkdir, readlink, rm, writeFile } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { isAbsent, refuse } from './errors.ts'

/**
 * Paths inside an instance's tree, resolved from the host without ever leaving the tree: every symbolic link is read
 * and followed within it, because a sandbox can plant `x -> /`. Used while the instance is stopped.
 */
export interface Tree {
  /** Top first: what an upper one holds hides the ones below. The first is the instance's writable layer. */
  readonly layers: readonly string[]
  /** Other directories that stand at these paths, with the host directory behind each. */
  readonly mounts: readonly TreeMount[]
}

export interface TreeMount {
  readonly path: string
  readonly source: string
  /** The host's own: nothing may ever be made in it. */
  readonly fixed: boolean
}

export interface Found {
  /** The path within the tree, free of symbolic links. */
  readonly path: string
  /** Where its content is on the host. */
  readonly source: string
  readonly kind: 'directory' | 'file' | 'other'
  readonly executable: boolean
}

/** As the kernel's own limit. */
const MAX_LINKS = 40

type Entry = Omit<Found, 'path' | 'kind'> & { readonly kind: Found['kind'] | 'link' | 'whiteout' }

async function look(source: string): Promise<Entry | null> {
  try {
    const stat = await lstat(source)
    const kind = stat.isSymbolicLink()
      ? 'link'
      : stat.isDirectory()
        ? 'directory'
        : stat.isFile()
          ? 'file'
          : stat.isCharacterDevice() && stat.rdev === 0
            ? 'whiteout'
            : 'other'
    return { source, kind, executable: (stat.mode & 0o111) !== 0 }
  } catch (error) {
    if (isAbsent(error)) return null
    throw error
  }
}

/** The mount that holds `path`: the longest that is a whole prefix of it. */
function mountAt(tree: Tree, path: string): TreeMount | undefined {
  return tree.mounts
    .filter((m) => path === m.path || path.startsWith(`${m.path}/`))
    .toSorted((a, b) => b.path.length - a.path.length)[0]
}

/** The entry at a path whose parent is known to be free of links. */
async function entryAt(tree: Tree, path: string): Promise<Entry | null> {
  const mount = mountAt(tree, path)
  if (mount !== undefined) return look(join(mount.source, path.slice(mount.path.length)))
  for (const layer of tree.layers) {
    const entry = await look(join(layer, path))
    if (entry?.kind === 'whiteout') return null
    if (entry !== null) return entry
  }
  return null
}

/**
 * Follows `path` from the tree's root. Returns what is found, or the deepest existing directory's path together with
 * what is missing below it.
 */
async function walk(
  tree: Tree,
  path: string,
): Promise<{ found: Found } | { at: string; missing: readonly string[] }> {
  let at = '/'
  let entry: Entry | null = await entryAt(tree, '/')
  let todo = path.split('/').filter((p) => p !== '' && p !== '.')
  let links = 0
  for (let next = todo.shift(); next !== undefined; next = todo.shift()) {
    const child = next === '..' ? posix.dirname(at) : posix.join(at, next)
    const seen = await entryAt(tree, child)
    if (seen === null) return { at, missing: [next, ...todo] }
    if (seen.kind === 'link') {
      if ((links += 1) > MAX_LINKS) throw refuse('invalid', `${path} passes through too many symbolic links`)
      const target = await readlink(seen.source)
      if (target.startsWith('/')) at = '/'
      todo = [...target.split('/').filter((p) => p !== '' && p !== '.'), ...todo]
      continue
    }
    at = child
    entry = seen
  }
  if (entry === null || entry.kind === 'link' || entry.kind === 'whiteout') return { at, missing: [] }
  return { found: { path: at, source: entry.source, kind: entry.kind, executable: entry.executable } }
}

/** Null when there is nothing at `path`. */
export async function find(tree: Tree, path: string): Promise<Found | null> {
  const result = await walk(tree, path)
  return 'found' in result ? result.found : null
}

/** The host directories whose contents, copied in this order over each other, are what the tree has at `path`. */
export async function contentsOf(tree: Tree, path: string): Promise<readonly string[]> {
  const found = await find(tree, path)
  if (found?.kind !== 'directory') return []
  if (mountAt(tree, found.path) !== undefined) return [found.source]
  const parts = found.path.split('/').filter((p) => p !== '')
  const sources: string[] = []
  for (const layer of tree.layers) {
    // A link here is hidden by a directory above it, and would lead out of the layer.
    let entry = await look(layer)
    for (const part of parts)
      entry = entry?.kind === 'directory' ? await look(join(entry.source, part)) : null
    if (entry?.kind !== 'directory') continue
    sources.unshift(entry.source)
  }
  return sources
}

/** A directory as it shows below: one made in the writable layer hides the mode and owner of those under it. */
async function makeDirectory(tree: Tree, path: string): Promise<void> {
  const mount = mountAt(tree, path)
  if (mount?.fixed) throw refuse('invalid', `${path} cannot be made: it is in a read-only part of the image`)
  const host =
    mount === undefined ? join(tree.layers[0] ?? '', path) : join(mount.source, path.slice(mount.path.length))
  const present = await look(host)
  if (present?.kind === 'directory') return
  const shown = await entryAt(tree, path)
  if (present?.kind === 'whiteout') await rm(host)
  await mkdir(host, { mode: 0o755 })
  if (shown === null) return
  const like = await lstat(shown.source)
  await chmod(host, like.mode & 0o7777)
  if (process.getuid?.() === 0) await chown(host, like.uid, like.gid)
}

/**
 * Makes sure that something can be mounted at `path`: a directory, or an empty file. Returns the path within the
 * tree, free of links. Missing parts are made in the writable layer, or in the volume that stands there.
 */
export async function ensurePoint(tree: Tree, path: string, kind: 'directory' | 'file'): Promise<string> {
  const result = await walk(tree, path)
  if ('found' in result) {
    if ((result.found.kind === 'directory') !== (kind === 'directory'))
      throw refuse(
        'invalid',
        `${path} is a ${result.found.kind} in the image, so a ${kind} cannot be mounted there`,
      )
    return result.found.path
  }
  const whole = posix.join(result.at, ...result.missing)
  const parts = (kind === 'file' ? posix.dirname(whole) : whole).split('/').filter((p) => p !== '')
  for (let i = 1; i <= parts.length; i++) await makeDirectory(tree, `/${parts.slice(0, i).join('/')}`)
  if (kind === 'file') {
    const mount = mountAt(tree, whole)
    if (mount?.fixed)
      throw refuse('invalid', `${path} cannot be made: it is in a read-only part of the image`)
    const host =
      mount === undefined
        ? join(tree.layers[0] ?? '', whole)
        : join(mount.source, whole.slice(mount.path.length))
    await writeFile(host, '', { flag: 'a' })
  }
  return whole
}
