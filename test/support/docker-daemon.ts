import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { rawDocker } from './docker-http.ts'

export interface PrivateDaemonOptions {
  /** Containers survive the daemon's restart. */
  readonly liveRestore?: boolean
  /** `none`: a daemon without a default bridge network, in a network namespace of its own. */
  readonly bridge?: 'own' | 'none'
  /** Further arguments, as `-H tcp://127.0.0.1:…`. */
  readonly args?: readonly string[]
}

/**
 * A Docker daemon of a test's own: its data, sockets, containerd and bridge are no other daemon's, and it leaves the
 * firewall alone, so that whatever is done to it harms nobody.
 */
export interface PrivateDaemon {
  readonly socketPath: string
  /** `unix://…` */
  readonly host: string
  readonly dir: string
  pid(): number
  start(): Promise<void>
  /**
   * `TERM`: in order, which stops the containers. `KILL`: the daemon alone. `power-cut`: daemon, containerd, shims and
   * the containers' processes at once.
   */
  stop(how: 'TERM' | 'KILL' | 'power-cut'): Promise<void>
  /** Ends all of its processes and removes all that it left. */
  destroy(): Promise<void>
}

const START_LIMIT_MS = 40_000
const STOP_LIMIT_MS = 40_000

export async function startPrivateDaemon(options: PrivateDaemonOptions = {}): Promise<PrivateDaemon> {
  const dir = await mkdtemp(join(tmpdir(), 'hfd-'))
  const paths = {
    root: join(dir, 'data'),
    exec: join(dir, 'exec'),
    pid: join(dir, 'pid'),
    socket: join(dir, 'docker.sock'),
  }
  const bridge = options.bridge === 'none' ? null : addBridge()
  const places = [
    '--data-root',
    paths.root,
    '--exec-root',
    paths.exec,
    '--pidfile',
    paths.pid,
    '--host',
    `unix://${paths.socket}`,
  ]
  const network = ['--bridge', bridge ?? 'none', '--iptables=false', '--ip-masq=false', '--ip-forward=false']
  const args = [
    ...places,
    ...network,
    ...(options.liveRestore === true ? ['--live-restore'] : []),
    ...(options.args ?? []),
  ]
  const log = join(dir, 'log')
  let child: ChildProcess | null = null

  const pid = (): number => {
    if (child?.pid === undefined) throw new Error('the daemon does not run')
    return child.pid
  }

  const daemon: PrivateDaemon = {
    socketPath: paths.socket,
    host: `unix://${paths.socket}`,
    dir,
    pid,
    async start() {
      // A killed daemon leaves these; a new process can have one of the numbers in them.
      await Promise.all([
        rm(paths.pid, { force: true }),
        rm(join(paths.exec, 'containerd/containerd.pid'), { force: true }),
      ])
      mkdirSync(paths.exec, { recursive: true })
      const out = openSync(log, 'a')
      // Without a bridge the daemon removes `docker0` wherever it is, and that is another daemon's.
      const [program = '', ...rest] =
        bridge === null ? ['unshare', '--net', 'dockerd', ...args] : ['dockerd', ...args]
      child = spawn(program, rest, { detached: true, stdio: ['ignore', out, out] })
      closeSync(out)
      await ready(child, paths.socket, log)
    },
    async stop(how) {
      const main = pid()
      const below = how === 'KILL' ? containerdsOf(main) : descendants(main)
      const shims = how === 'power-cut' ? shimsOf(paths.exec) : []
      const all = [main, ...(how === 'power-cut' ? [...below, ...shims, ...shims.flatMap(descendants)] : [])]
      for (const each of new Set(all)) signal(each, how === 'TERM' ? 'SIGTERM' : 'SIGKILL')
      if (how === 'power-cut') thawAll(paths.root)
      await gone([...all, ...below], how)
      child = null
    },
    async destroy() {
      const main = child?.pid
      const shims = shimsOf(paths.exec)
      const all = [
        ...(main === undefined ? [] : [main, ...descendants(main)]),
        ...shims,
        ...shims.flatMap(descendants),
      ]
      for (const each of new Set(all)) signal(each, 'SIGKILL')
      thawAll(paths.root)
      await gone(all, 'destroy')
      child = null
      for (const id of containersOf(paths.root)) removeCgroups(id)
      for (const mount of mountsUnder(dir)) execFileSync('umount', ['-l', mount])
      await rm(dir, { recursive: true, force: true })
      if (bridge !== null) execFileSync('ip', ['link', 'del', bridge])
    },
  }
  try {
    await daemon.start()
    return daemon
  } catch (error) {
    await daemon.destroy()
    throw error
  }
}

/** A bridge device with a subnet that nothing on this machine has. */
function addBridge(): string {
  const routes = execFileSync('ip', ['-4', 'route', 'show'], { encoding: 'utf8' })
  for (let attempt = 0; attempt < 50; attempt++) {
    const third = Math.floor(Math.random() * 250) + 1
    const name = `hfd${process.pid.toString(36)}x${third.toString(36)}`.slice(0, 15)
    if (routes.includes(`10.213.${third}.`) || existsSync(`/sys/class/net/${name}`)) continue
    execFileSync('ip', ['link', 'add', name, 'type', 'bridge'])
    execFileSync('ip', ['addr', 'add', `10.213.${third}.1/24`, 'dev', name])
    execFileSync('ip', ['link', 'set', name, 'up'])
    return name
  }
  throw new Error('no subnet is free for a bridge')
}

async function ready(child: ChildProcess, socket: string, log: string): Promise<void> {
  const end = performance.now() + START_LIMIT_MS
  for (;;) {
    const answer = await rawDocker(socket, 'GET', '/_ping').catch(() => null)
    if (answer?.status === 200) return
    const tail = (): string => readFileSync(log, 'utf8').split('\n').slice(-8).join('\n')
    if (child.exitCode !== null || child.signalCode !== null) throw new Error(`dockerd ended:\n${tail()}`)
    if (performance.now() > end) throw new Error(`dockerd did not answer in ${START_LIMIT_MS} ms:\n${tail()}`)
    await delay(50)
  }
}

interface Process {
  readonly pid: number
  readonly parent: number
  readonly zombie: boolean
}

function processOf(pid: number): Process | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const [state = '', parent = ''] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return { pid, parent: Number(parent), zombie: state === 'Z' || state === 'X' }
  } catch {
    // It ended between the listing and the look.
    return null
  }
}

const allProcesses = (): Process[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => processOf(Number(name)) ?? [])

function descendants(root: number): number[] {
  const all = allProcesses()
  const out: number[] = []
  for (let level = [root]; level.length > 0;) {
    level = all.filter((p) => level.includes(p.parent)).map((p) => p.pid)
    out.push(...level)
  }
  return out
}

/** Those that end with a killed daemon; a shim or a start that it was in the middle of does not. */
function containerdsOf(daemon: number): number[] {
  return allProcesses()
    .filter((p) => p.parent === daemon && commandOf(p.pid).endsWith('containerd'))
    .map((p) => p.pid)
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')[0] ?? ''
  } catch {
    // It ended between the listing and the look.
    return ''
  }
}

/** The shims of this daemon's containerd, by the socket of it that is in their arguments. */
function shimsOf(execRoot: string): number[] {
  return allProcesses()
    .map((p) => p.pid)
    .filter((pid) => {
      try {
        const args = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
        return (
          args[0]?.includes('containerd-shim') === true &&
          args.includes(join(execRoot, 'containerd/containerd.sock'))
        )
      } catch {
        // It ended between the listing and the look.
        return false
      }
    })
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** A zombie holds nothing any more: it only waits for its parent to look. */
async function gone(pids: readonly number[], how: string): Promise<void> {
  const end = performance.now() + STOP_LIMIT_MS
  for (;;) {
    const left = pids.filter((pid) => processOf(pid)?.zombie === false)
    if (left.length === 0) return
    if (performance.now() > end) throw new Error(`after ${how}, these processes go on: ${left.join(' ')}`)
    await delay(20)
  }
}

/** Deepest first. */
function mountsUnder(dir: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((path) => path.startsWith(`${dir}/`))
    .toSorted((a, b) => b.length - a.length)
}

function containersOf(dataRoot: string): string[] {
  const dir = join(dataRoot, 'containers')
  return existsSync(dir) ? readdirSync(dir) : []
}

/** A container's groups in each hierarchy, version 1 or 2. */
function cgroupsOf(id: string): string[] {
  const roots = [
    '/sys/fs/cgroup',
    ...readdirSync('/sys/fs/cgroup').map((name) => join('/sys/fs/cgroup', name)),
  ]
  return roots.map((root) => join(root, 'docker', id)).filter((path) => existsSync(path))
}

/** A frozen process takes no signal, not even KILL. */
function thawAll(dataRoot: string): void {
  for (const group of containersOf(dataRoot).flatMap(cgroupsOf)) {
    for (const [file, thawed] of [
      ['freezer.state', 'THAWED'],
      ['cgroup.freeze', '0'],
    ] as const)
      if (existsSync(join(group, file))) writeFileSync(join(group, file), thawed)
  }
}

/** Killed containers leave their empty cgroups. */
function removeCgroups(id: string): void {
  for (const path of cgroupsOf(id)) {
    try {
      rmdirSync(path)
    } catch {
      // Busy for a moment still; an empty cgroup of a unique name disturbs nobody.
    }
  }
}
