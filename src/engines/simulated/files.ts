import { createHash } from 'node:crypto'
import { posix } from 'node:path'

export type FileNode =
  | { readonly type: 'directory'; readonly mode: number }
  | { readonly type: 'file'; readonly mode: number; readonly data: Uint8Array }
  | { readonly type: 'symlink'; readonly mode: number; readonly target: string }

/** A file system: absolute normalised paths, the root being `/`. Nodes are never changed, only replaced. */
export type Tree = Map<string, FileNode>

/** Files by absolute path: their text, or with a mode, or a symbolic link's target. */
export type FileDraft = string | { readonly text: string; readonly mode: number } | { readonly link: string }

export interface Mounted {
  readonly path: string
  readonly tree: Tree
  readonly readOnly: boolean
}

/** An ordinary failure of a file operation, as a program would print it. */
export class FileError extends Error {
  readonly code: 'missing' | 'read-only' | 'not-a-directory' | 'loop'
  constructor(code: FileError['code'], path: string) {
    super(`${path}: ${code}`)
    this.code = code
  }
}

export interface FileView {
  /** Follows links; null when there is nothing. */
  stat(path: string): FileNode | null
  /** The node itself, a link as a link. */
  lstat(path: string): FileNode | null
  read(path: string): Uint8Array
  /** The directory it is in must exist. */
  write(path: string, node: FileNode): void
  /** The names in a directory, sorted. */
  list(path: string): readonly string[]
}

const DIRECTORY: FileNode = { type: 'directory', mode: 0o755 }
/** As on Linux. */
const LINKS_MAX = 40

export function emptyTree(): Tree {
  return new Map([['/', DIRECTORY]])
}

export function put(tree: Tree, path: string, draft: FileDraft): void {
  for (let dir = posix.dirname(path); !tree.has(dir); dir = posix.dirname(dir)) tree.set(dir, DIRECTORY)
  if (typeof draft === 'string') tree.set(path, { type: 'file', mode: 0o644, data: Buffer.from(draft) })
  else if ('link' in draft) tree.set(path, { type: 'symlink', mode: 0o777, target: draft.link })
  else tree.set(path, { type: 'file', mode: draft.mode, data: Buffer.from(draft.text) })
}

export function treeOf(files: Readonly<Record<string, FileDraft>>): Tree {
  const tree = emptyTree()
  for (const [path, draft] of Object.entries(files)) put(tree, posix.normalize(path), draft)
  return tree
}

/** The part of a tree below `path`, as a tree of its own; null when there is no such directory. */
export function subtree(tree: Tree, path: string): Tree | null {
  const root = tree.get(path)
  if (root?.type !== 'directory') return null
  const out: Tree = new Map([['/', root]])
  const prefix = path === '/' ? '/' : `${path}/`
  for (const [at, node] of tree)
    if (at !== '/' && at.startsWith(prefix)) out.set(`/${at.slice(prefix.length)}`, node)
  return out
}

/** Path → text of every file. */
export function texts(tree: Tree): Record<string, string> {
  const out: Record<string, string> = {}
  for (const [path, node] of [...tree].toSorted(([a], [b]) => (a < b ? -1 : 1)))
    if (node.type === 'file') out[path] = Buffer.from(node.data).toString()
  return out
}

export function digest(tree: Tree): string {
  const hash = createHash('sha256')
  for (const [path, node] of [...tree].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(JSON.stringify([path, node.type, node.mode, node.type === 'symlink' ? node.target : '']))
    if (node.type === 'file') hash.update(node.data)
  }
  return hash.digest('hex')
}

/** What a process sees: a root and the mounts over it, the longest path winning. */
export function createFileView(root: Tree, mounts: readonly Mounted[]): FileView {
  const place = (path: string): { tree: Tree; inner: string; readOnly: boolean } => {
    let best: Mounted | undefined
    for (const m of mounts)
      if ((path === m.path || path.startsWith(`${m.path}/`)) && m.path.length > (best?.path.length ?? -1))
        best = m
    if (best === undefined) return { tree: root, inner: path, readOnly: false }
    return { tree: best.tree, inner: path.slice(best.path.length) || '/', readOnly: best.readOnly }
  }
  const at = (path: string): FileNode | null => {
    const { tree, inner } = place(path)
    const found = tree.get(inner) ?? null
    // A mount point shows even where the image has no such directory, and so do the directories above it.
    if (found === null && mounts.some((m) => m.path.startsWith(`${path}/`))) return DIRECTORY
    return found
  }
  /** The path with all links but, unless `last`, the final one followed. */
  const resolve = (path: string, last: boolean, budget = LINKS_MAX): string => {
    if (budget === 0) throw new FileError('loop', path)
    let done = '/'
    const parts = posix.normalize(`/${path}`).split('/').filter(Boolean)
    for (const [i, part] of parts.entries()) {
      const here = posix.join(done, part)
      const node = at(here)
      const rest = parts.slice(i + 1)
      if (node?.type === 'symlink' && (rest.length > 0 || last))
        return resolve(posix.join(posix.resolve(done, node.target), ...rest), last, budget - 1)
      done = here
    }
    return done
  }

  return {
    stat: (path) => at(resolve(path, true)),
    lstat: (path) => at(resolve(path, false)),
    read(path) {
      const node = at(resolve(path, true))
      if (node?.type !== 'file') throw new FileError('missing', path)
      return node.data
    },
    write(path, node) {
      const target = resolve(path, false)
      const { tree, inner, readOnly } = place(target)
      if (readOnly) throw new FileError('read-only', path)
      if (at(posix.dirname(target))?.type !== 'directory') throw new FileError('missing', path)
      const before = tree.get(inner)
      if (before?.type === 'directory' && node.type !== 'directory')
        throw new FileError('not-a-directory', path)
      tree.set(inner, node)
    },
    list(path) {
      const dir = resolve(path, true)
      const prefix = dir === '/' ? '/' : `${dir}/`
      const { tree, inner } = place(dir)
      const below = inner === '/' ? '/' : `${inner}/`
      const names = new Set<string>()
      for (const key of tree.keys())
        if (key !== '/' && key.startsWith(below)) names.add(key.slice(below.length).split('/')[0] ?? '')
      for (const m of mounts)
        if (m.path.startsWith(prefix)) names.add(m.path.slice(prefix.length).split('/')[0] ?? '')
      return [...names].filter(Boolean).toSorted()
    },
  }
}
