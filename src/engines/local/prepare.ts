import { existsSync, readFileSync } from 'node:fs'
import { mkdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { errnoOf, refuse } from './errors.ts'
import type { Layout } from './files.ts'
import { allowedPath, DEFAULT_PATH, DEVICES, type HostView, type Image } from './image.ts'
import { type Mode, type Owner, TAG_VARIABLE } from './launch.ts'
import type { Instance, Meta } from './records.ts'
import { ensurePoint, find, type Found, type Tree, type TreeMount } from './tree.ts'
import type { Volumes } from './volumes.ts'

/** What preparing needs to know of the engine. */
export interface Ground {
  readonly mode: Mode
  readonly layout: Layout
  readonly view: HostView
  readonly allowed: readonly string[]
  readonly volumes: Volumes
}

/** A mount of the request with its real source, checked on the host right before each use. */
interface Source extends TreeMount {
  readonly kind: 'directory' | 'file'
  readonly readOnly: boolean
}

async function sourceOf(ground: Ground, mount: Meta['mounts'][number]): Promise<Source> {
  const { path, source, readOnly } = mount
  if (source.kind === 'volume') {
    const data = await ground.volumes.data(source.name)
    if (data === null) throw refuse('not-found', `there is no volume ${source.name} for ${path}`)
    return { path, source: data, kind: 'directory', readOnly, fixed: readOnly }
  }
  const real = await allowedPath(source.path, ground.allowed)
  if (real === null) throw refuse('not-found', `there is no host path ${source.path} for ${path}`)
  const kind = (await stat(real)).isDirectory() ? 'directory' : 'file'
  return { path, source: real, kind, readOnly, fixed: readOnly }
}

export async function sourcesOf(ground: Ground, mounts: Meta['mounts']): Promise<readonly Source[]> {
  const all = await Promise.all(mounts.map((m) => sourceOf(ground, m)))
  // Parents first: a mount beneath another one must come after it.
  return all.toSorted((a, b) => a.path.split('/').length - b.path.split('/').length)
}

/** The tree of an image alone, with this directory on top. */
export function imageTree(ground: Ground, image: Image, skeleton: string, top: string): Tree {
  const base = join(ground.layout.skeletons, skeleton, 'base')
  if (image.kind === 'dir') return { layers: [top, base, image.path], mounts: [] }
  const trees = [...ground.view.trees].filter(([, link]) => link === null).map(([name]) => `/${name}`)
  return {
    layers: [top, base, join(ground.layout.skeletons, skeleton, 'host')],
    mounts: trees.map((path) => ({ path, source: path, fixed: true })),
  }
}

/** As the instance sees itself, for look-ups from the host. With mode `none` it sees the host, and its mounts. */
export async function instanceTree(ground: Ground, instance: Instance, image: Image): Promise<Tree> {
  const sources = await sourcesOf(ground, instance.meta.mounts)
  if (ground.mode === 'none') return { layers: ['/'], mounts: sources }
  const bare = imageTree(ground, image, instance.meta.skeleton, join(instance.dir, 'upper'))
  return { layers: bare.layers, mounts: [...bare.mounts, ...sources] }
}

/** Options that a mount over this path must keep: the kernel refuses a user who drops one of them. */
function keptOptions(mounted: readonly string[], path: string): string[] {
  let best = ''
  let options: string[] = []
  for (const line of mounted) {
    const [, , , , raw = '', flags = ''] = line.split(' ')
    const point = raw.replaceAll(/\\(\d{3})/g, (_m, octal: string) =>
      String.fromCodePoint(Number.parseInt(octal, 8)),
    )
    const holds = path === point || path.startsWith(point === '/' ? '/' : `${point}/`)
    // Of mounts on one point the last is the one that shows.
    if (holds && point.length >= best.length) {
      best = point
      options = flags.split(',')
    }
  }
  return options.filter((o) => ['nosuid', 'nodev', 'noexec', 'noatime', 'nodiratime'].includes(o))
}

const field = (text: string): string =>
  text.replaceAll(/[\s\\#]/g, (c) => `\\${c.codePointAt(0)?.toString(8).padStart(3, '0') ?? ''}`)

/** As real root without a user namespace, and as root with all ids, these would change the host. */
const SEALED = ['sys', 'sysrq-trigger', 'irq', 'bus', 'fs']

function fstab(ground: Ground, instance: Instance, image: Image, sources: readonly Source[]): string {
  const root = join(instance.dir, 'root')
  const mounted = readFileSync('/proc/self/mountinfo', 'utf8').trimEnd().split('\n')
  const lines: string[] = []
  const line = (source: string, path: string, type: string, options: readonly string[]): void => {
    lines.push(`${field(source)} ${field(join(root, path))} ${type} ${options.join(',')} 0 0`)
  }
  const bind = (source: string, path: string, readOnly: boolean, deep = true): void =>
    line(source, path, 'none', [
      deep ? 'rbind' : 'bind',
      ...(readOnly ? ['ro', ...keptOptions(mounted, source)] : []),
    ])
  // Layers by short names in the instance's own directory: an overlay's options have no way to quote every path.
  line('overlay', '/', 'overlay', ['userxattr', 'lowerdir=base:lower', 'upperdir=upper', 'workdir=work'])
  line('proc', '/proc', 'proc', ['nosuid', 'nodev', 'noexec'])
  if (ground.mode !== 'single') {
    for (const name of SEALED) {
      const path = join(root, 'proc', name)
      if (existsSync(`/proc/${name}`))
        line(path, `/proc/${name}`, 'none', ['bind', 'ro', 'nosuid', 'nodev', 'noexec'])
    }
  }
  for (const device of DEVICES) bind(`/dev/${device}`, `/dev/${device}`, false, false)
  line('devpts', '/dev/pts', 'devpts', ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620'])
  line('shm', '/dev/shm', 'tmpfs', ['nosuid', 'nodev', 'mode=1777', 'size=64m'])
  if (image.kind === 'host') {
    for (const [name, link] of ground.view.trees) if (link === null) bind(`/${name}`, `/${name}`, true)
    for (const [name, { source }] of ground.view.etc) bind(source, `/etc/${name}`, true)
  }
  if (ground.view.resolver !== null) bind(ground.view.resolver, '/etc/resolv.conf', true)
  for (const s of sources) bind(s.source, s.path, s.readOnly)
  return `${lines.join('\n')}\n`
}

async function relink(target: string, path: string): Promise<void> {
  await rm(path, { force: true })
  await symlink(target, path)
}

/**
 * Makes everything that a start mounts: links to the layers, mount points (resolved within the tree, since a sandbox
 * can plant links in its own layer), and the table for `mount -a`.
 */
export async function prepareMounts(ground: Ground, instance: Instance, image: Image): Promise<Tree> {
  const { dir, meta } = instance
  const bare = imageTree(ground, image, meta.skeleton, join(dir, 'upper'))
  await relink(bare.layers[1] ?? '', join(dir, 'base'))
  await relink(bare.layers[2] ?? '', join(dir, 'lower'))
  const mounts = [...bare.mounts]
  const placed: Source[] = []
  for (const source of await sourcesOf(ground, meta.mounts)) {
    const tree: Tree = { layers: bare.layers, mounts }
    const path = await ensurePoint(tree, source.path, source.kind)
    placed.push({ ...source, path })
    mounts.push({ ...source, path })
  }
  await writeFile(join(dir, 'fstab'), fstab(ground, instance, image, placed), { mode: 0o600 })
  return { layers: bare.layers, mounts }
}

/**
 * Where a command is, or null when it is certainly nowhere. `hidden` when a place could not be looked into: whoever
 * runs inside may still see more than we do.
 */
export async function findProgram(
  tree: Tree,
  program: string,
  env: Readonly<Record<string, string>>,
  cwd: string,
): Promise<Found | 'hidden' | null> {
  const within = (dir: string): string => (dir.startsWith('/') ? dir : `${cwd}/${dir}`)
  const names = program.includes('/')
    ? [within(program)]
    : (env['PATH'] ?? DEFAULT_PATH).split(':').map((d) => `${within(d)}/${program}`)
  let hidden = false
  for (const name of names) {
    try {
      const found = await find(tree, name)
      if (found?.kind === 'file' && found.executable) return found
    } catch (error) {
      if (errnoOf(error) !== 'EACCES') throw error
      hidden = true
    }
  }
  return hidden ? 'hidden' : null
}

/** True for a user that every mode can give: the one that workloads have anyway. */
export function isDefaultUser(mode: Mode, user: string | null | undefined): boolean {
  if (user === null || user === undefined || user === '') return true
  if (mode === 'none') return /^\d+/.exec(user)?.[0] === String(process.getuid?.())
  return ['0', 'root', '0:0', 'root:root'].includes(user)
}

export function checkUser(mode: Mode, user: string | null | undefined): void {
  if (isDefaultUser(mode, user) || mode === 'identity' || mode === 'bare') return
  throw refuse(
    'unsupported',
    `the user ${user} cannot be had: the local engine has other users only when the server runs as root`,
  )
}

async function entries(tree: Tree, path: string): Promise<string[][]> {
  const found = await find(tree, path)
  if (found === null || found.kind !== 'file') return []
  return (await readFile(found.source, 'utf8')).split('\n').map((l) => l.split(':'))
}

/** Ids and home of `name`, `uid`, `name:group` or `uid:gid`, by the image's own account files. */
export async function resolveUser(
  mode: Mode,
  tree: Tree,
  user: string | null | undefined,
): Promise<{ owner: Owner | null; home: string }> {
  checkUser(mode, user)
  if (mode === 'none') return { owner: null, home: process.env['HOME'] ?? '/' }
  const [name = '', group] = (user ?? '').split(':')
  if (name === '' || isDefaultUser(mode, user)) return { owner: null, home: '/root' }
  const account = (await entries(tree, '/etc/passwd')).find((e) => e[0] === name || e[2] === name)
  const uid = account?.[2] ?? name
  const found =
    group === undefined
      ? undefined
      : (await entries(tree, '/etc/group')).find((e) => e[0] === group || e[2] === group)
  const gid = group === undefined ? (account?.[3] ?? uid) : (found?.[2] ?? group)
  if (!/^\d+$/.test(uid) || !/^\d+$/.test(gid)) throw refuse('invalid', `the image has no user ${user}`)
  return { owner: { uid: Number(uid), gid: Number(gid) }, home: account?.[5] || '/' }
}

/** What a program of the instance finds in its environment before its own variables. */
export function baseEnvironment(ground: Ground, instance: Instance, home: string): Record<string, string> {
  const { meta } = instance
  const plain: Record<string, string> = {}
  if (ground.mode === 'none') {
    plain[TAG_VARIABLE] = meta.tag
    for (const [i, mount] of meta.mounts.entries())
      plain[`HOLDFAST_MOUNT_${i}`] = join(instance.dir, 'mounts', basename(mount.path))
  }
  const path = ground.mode === 'none' ? (process.env['PATH'] ?? DEFAULT_PATH) : DEFAULT_PATH
  return { PATH: path, HOME: home, HOSTNAME: meta.hostname, ...plain, ...meta.env }
}

/** Names that a shell can hand on; others could only be set by a program that an image need not have. */
const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*$/

export function checkEnvironment(env: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(env)) {
    if (!VARIABLE.test(name))
      throw refuse('invalid', `"${name}" cannot be the name of an environment variable`)
    if (value.includes('\0')) throw refuse('invalid', `the value of ${name} holds a NUL`)
  }
}

const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

/** Environment, working directory and command as text for `.`: a file, because arguments can be seen by everybody. */
export async function writeEnvironment(
  dir: string,
  env: Readonly<Record<string, string>>,
  workingDir: string,
  argv: readonly string[],
): Promise<void> {
  const lines = Object.entries(env).map(([k, v]) => `export ${k}=${quote(v)}`)
  const text = ['unset LC_ALL', ...lines, `set -- ${[workingDir, ...argv].map(quote).join(' ')}`, '']
  // Readable by whom the workload runs as, through a descriptor; the directory itself is closed to others.
  await writeFile(join(dir, 'env.sh'), text.join('\n'), { mode: 0o644 })
}

/** An empty status of full size: the later overwrite needs no space. */
export async function resetStatus(dir: string): Promise<void> {
  await writeFile(join(dir, 'status'), `${' '.repeat(19)}\n`, { mode: 0o600 })
}

/** With mode `none`: links that lead to the volumes, by the last part of their paths, and a place to work in. */
export async function prepareLinks(instance: Instance, sources: readonly Source[]): Promise<void> {
  await mkdir(join(instance.dir, 'home'), { recursive: true })
  await mkdir(join(instance.dir, 'mounts'), { recursive: true })
  for (const s of sources) await relink(s.source, join(instance.dir, 'mounts', basename(s.path)))
}
