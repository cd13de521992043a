import { createHash } from 'node:crypto'
import {
  chmod,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { isAbsolute, join, normalize } from 'node:path'
import type { Ids } from '../../model/ids.ts'
import { errnoOf, isAbsent, refuse } from './errors.ts'
import { exists, type Layout, removeTree } from './files.ts'

/** An image of this engine: the host's own programs, or a directory that holds a root file system. */
export type Image = { readonly kind: 'host' } | { readonly kind: 'dir'; readonly path: string }

/** What runs when nothing is asked for: a sandbox is a place to run things in, so it stays. */
export const DEFAULT_COMMAND: readonly string[] = ['sleep', 'infinity']

export const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** The real path, when it lies under one of the prefixes after all symbolic links are resolved; null when it is absent. */
export async function allowedPath(path: string, prefixes: readonly string[]): Promise<string | null> {
  if (!isAbsolute(path)) throw refuse('invalid', `${path} is not an absolute path`)
  try {
    const real = await realpath(path)
    for (const prefix of prefixes) {
      const base = await realpath(prefix).catch(() => null) // a prefix that is not there allows nothing
      if (base !== null && (real === base || real.startsWith(base === '/' ? '/' : `${base}/`))) return real
    }
    throw refuse(
      'denied',
      `${path} is not under an allowed host path (${prefixes.join(', ') || 'none is allowed'})`,
    )
  } catch (error) {
    if (isAbsent(error)) return null
    throw error
  }
}

/** Null when there is no such image here. */
export async function findImage(name: string, allowed: readonly string[]): Promise<Image | null> {
  if (name === 'host') return { kind: 'host' }
  if (!name.startsWith('dir:')) return null
  const path = await allowedPath(normalize(name.slice('dir:'.length)), allowed)
  if (path === null || !(await stat(path)).isDirectory()) return null
  return { kind: 'dir', path }
}

export async function requireImage(name: string, allowed: readonly string[]): Promise<Image> {
  const image = await findImage(name, allowed).catch((error: unknown) => {
    if (errnoOf(error) !== undefined) throw error
    throw refuse('image-missing', `the image ${name} cannot be used: ${(error as Error).message}`, error)
  })
  if (image !== null) return image
  throw refuse(
    'image-missing',
    `there is no image ${name} on the local engine: it has "host" and "dir:/path" for directories under the allowed host paths`,
  )
}

/** Directories of the host that image `host` shows, read-only; links such as /bin -> usr/bin are made as they are. */
const HOST_TREES = ['usr', 'bin', 'sbin', 'lib', 'lib32', 'lib64', 'libx32', 'nix']
/** Parts of the host's /etc that programs in /usr need, shown read-only where present. No keys and no accounts. */
const HOST_ETC = [
  'ld.so.cache',
  'ld.so.conf',
  'ld.so.conf.d',
  'alternatives',
  'ssl/certs',
  'ssl/openssl.cnf',
  'pki/ca-trust/extracted',
  'pki/tls/certs',
  'ca-certificates',
  'terminfo',
  'protocols',
  'services',
]

const PASSWD = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
user:x:1000:1000:user:/home/user:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
`
const GROUP = `root:x:0:
daemon:x:1:
tty:x:5:
user:x:1000:
nogroup:x:65534:
`

export const DEVICES = ['null', 'zero', 'full', 'random', 'urandom', 'tty'] as const

/** What every image gets on top: places for what is mounted at each start. */
async function makeBase(dir: string): Promise<void> {
  for (const sub of ['dev/pts', 'dev/shm', 'proc', 'sys', 'etc'])
    await mkdir(join(dir, sub), { recursive: true, mode: 0o755 })
  for (const device of DEVICES) await writeFile(join(dir, 'dev', device), '')
  for (const [name, target] of [
    ['fd', '/proc/self/fd'],
    ['stdin', 'fd/0'],
    ['stdout', 'fd/1'],
    ['stderr', 'fd/2'],
    ['ptmx', 'pts/ptmx'],
  ] as const)
    await symlink(target, join(dir, 'dev', name))
  await writeFile(join(dir, 'etc/resolv.conf'), '')
}

/** The parts of image `host` that are not the host's own. */
async function makeHost(
  dir: string,
  links: ReadonlyMap<string, string | null>,
  etc: HostView['etc'],
): Promise<void> {
  const dirs = [
    'etc',
    'home/user',
    'opt',
    'run',
    'srv',
    'media',
    'mnt',
    'var/cache',
    'var/lib',
    'var/log',
    'var/spool',
    'usr',
  ]
  for (const sub of dirs) await mkdir(join(dir, sub), { recursive: true, mode: 0o755 })
  await mkdir(join(dir, 'root'), { mode: 0o700 })
  for (const sub of ['tmp', 'var/tmp']) {
    await mkdir(join(dir, sub))
    await chmod(join(dir, sub), 0o1777)
  }
  await symlink('/run', join(dir, 'var/run'))
  for (const [name, target] of links) {
    if (target !== null) await symlink(target, join(dir, name))
    else await mkdir(join(dir, name), { recursive: true, mode: 0o755 })
  }
  for (const [name, { directory }] of etc) {
    await mkdir(join(dir, 'etc', directory ? name : join(name, '..')), { recursive: true, mode: 0o755 })
    if (!directory) await writeFile(join(dir, 'etc', name), '')
  }
  await writeFile(join(dir, 'etc/passwd'), PASSWD)
  await writeFile(join(dir, 'etc/group'), GROUP)
  await writeFile(join(dir, 'etc/nsswitch.conf'), 'passwd: files\ngroup: files\nhosts: files dns\n')
  await writeFile(
    join(dir, 'etc/os-release'),
    await readFile('/etc/os-release', 'utf8').catch(() => 'ID=linux\n'),
  ) // optional on a host
}

/** What of the host is shown, found anew at each open, because an upgrade of the host can change it. */
export interface HostView {
  /** Top-level names: a link's target, or null for a directory. */
  readonly trees: ReadonlyMap<string, string | null>
  /** Names below /etc, with what stands there after all links. */
  readonly etc: ReadonlyMap<string, { readonly source: string; readonly directory: boolean }>
  readonly resolver: string | null
}

export async function viewHost(): Promise<HostView> {
  const trees = new Map<string, string | null>()
  for (const name of HOST_TREES) {
    if (!(await exists(`/${name}`))) continue
    const link = (await lstat(`/${name}`)).isSymbolicLink()
    trees.set(name, link ? await readlink(`/${name}`) : null)
  }
  const etc = new Map<string, { source: string; directory: boolean }>()
  for (const name of HOST_ETC) {
    const source = await realpath(`/etc/${name}`).catch(() => null) // absent or unreadable: not shown
    if (source !== null) etc.set(name, { source, directory: (await stat(source)).isDirectory() })
  }
  const resolver = await realpath('/etc/resolv.conf').catch(() => null) // a host without one has no names to resolve
  return { trees, etc, resolver }
}

/**
 * The lower layers that all instances share, made once for each shape that the host has had. They are never changed
 * after: an overlay does not expect its lower layers to change.
 */
export async function ensureSkeleton(layout: Layout, ids: Ids, view: HostView): Promise<string> {
  const shape = JSON.stringify(['v1', [...view.trees], [...view.etc].map(([name, e]) => [name, e.directory])])
  const name = `v1-${createHash('sha256').update(shape).digest('hex').slice(0, 12)}`
  const path = join(layout.skeletons, name)
  if (await exists(path)) return name
  const making = join(layout.making, ids.next())
  await mkdir(join(making, 'base'), { recursive: true, mode: 0o755 })
  await mkdir(join(making, 'host'), { mode: 0o755 })
  await makeBase(join(making, 'base'))
  await makeHost(join(making, 'host'), view.trees, view.etc)
  try {
    await rename(making, path)
  } catch (error) {
    if (errnoOf(error) !== 'ENOTEMPTY' && errnoOf(error) !== 'EEXIST') throw error
    await removeTree(making)
  }
  return name
}

/** True when a directory holds nothing but what a file system puts there itself. */
export async function isEmptyDirectory(path: string): Promise<boolean> {
  return (await readdir(path)).every((name) => name === 'lost+found')
}
