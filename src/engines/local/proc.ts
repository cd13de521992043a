import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { readdir, readFile, readlink } from 'node:fs/promises'
import { errnoOf, isAbsent } from './errors.ts'

/** A process for as long as this boot lasts: a pid alone is reused. */
export interface ProcessIdentity {
  readonly pid: number
  /** Field 22 of /proc/PID/stat, clock ticks since boot. A text that `ps` tells elsewhere. */
  readonly start: string
}

export interface ProcessStat extends ProcessIdentity {
  /** One letter: R, S, D, T, Z… */
  readonly state: string
  readonly session: number
  /** User and system time, its own and that of the children it has reaped, clock ticks. */
  readonly ticks: number
}

/** Clock ticks a second in /proc, fixed by the kernel's interface on every Linux that Node runs on. */
export const TICKS_PER_SECOND = 100

/** Reads one line of /proc/PID/stat. The name may hold spaces and parentheses, so fields count from the last `)`. */
export function parseStat(line: string): ProcessStat | null {
  const open = line.indexOf('(')
  const close = line.lastIndexOf(')')
  const rest = line.slice(close + 2).split(' ')
  const pid = Number(line.slice(0, open).trim())
  const start = rest[19]
  if (open < 0 || close < open || !Number.isInteger(pid) || pid <= 0 || start === undefined) return null
  const number = (i: number): number => Number(rest[i] ?? 0)
  return {
    pid,
    start: start.trim(),
    state: rest[0] ?? '?',
    session: number(3),
    ticks: number(11) + number(12) + number(13) + number(14),
  }
}

function statByPs(pid: number): ProcessStat | null {
  const ps = spawnSync('ps', ['-o', 'state=,sess=,lstart=', '-p', String(pid)], { encoding: 'utf8' })
  if (ps.error !== undefined) throw ps.error
  const line = ps.stdout.trim()
  if (line === '') return null
  const [state = '?', session = '0', ...start] = line.split(/\s+/)
  return { pid, start: start.join(' '), state: state.slice(0, 1), session: Number(session), ticks: 0 }
}

/** Null when there is certainly no such process; any other failure is thrown, because unknown is not absent. */
export function statOf(pid: number): ProcessStat | null {
  if (process.platform !== 'linux') return statByPs(pid)
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, 'latin1'))
  } catch (error) {
    if (isAbsent(error) || errnoOf(error) === 'ESRCH') return null
    throw error
  }
}

/** True while exactly this process lives; a zombie has ended. */
export function isAlive(id: ProcessIdentity): boolean {
  const stat = statOf(id.pid)
  return stat !== null && stat.start === id.start && stat.state !== 'Z' && stat.state !== 'X'
}

/** Signals this very process. False when it is gone, whoever may have its pid now. */
export function signal(id: ProcessIdentity, name: NodeJS.Signals): boolean {
  // No await between the check and the signal: the pid cannot pass through a whole reuse in between.
  if (!isAlive(id)) return false
  try {
    process.kill(id.pid, name)
    return true
  } catch (error) {
    if (errnoOf(error) === 'ESRCH') return false
    throw error
  }
}

/** Signals the process group that this very process leads. */
export function signalGroup(leader: ProcessIdentity, name: NodeJS.Signals): boolean {
  if (!isAlive(leader)) return false
  try {
    process.kill(-leader.pid, name)
    return true
  } catch (error) {
    if (errnoOf(error) === 'ESRCH') return false
    throw error
  }
}

/** What tells this boot of the machine from the next. */
export function bootId(): string {
  if (process.platform === 'linux') return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  const sysctl = spawnSync('sysctl', ['-n', 'kern.bootsessionuuid'], { encoding: 'utf8' })
  if (sysctl.error !== undefined) throw sysctl.error
  return sysctl.stdout.trim()
}

async function pids(): Promise<number[]> {
  return (await readdir('/proc')).filter((n) => /^\d+$/.test(n)).map(Number)
}

/** Of a process that is gone or not ours to look at: null. Both cannot be members of our own instances. */
async function peek(path: string, read: (path: string) => Promise<string>): Promise<string | null> {
  try {
    return await read(path)
  } catch (error) {
    if (isAbsent(error) || ['ESRCH', 'EACCES', 'EPERM', 'EINVAL'].includes(errnoOf(error) ?? '')) return null
    throw error
  }
}

async function matching(test: (pid: number) => Promise<boolean>): Promise<ProcessStat[]> {
  const found = await Promise.all((await pids()).map(async (pid) => ((await test(pid)) ? statOf(pid) : null)))
  return found.filter((s) => s !== null && s.state !== 'Z' && s.state !== 'X') as ProcessStat[]
}

/** All living processes of the pid namespace that `init` is process 1 of. */
export async function namespaceProcesses(init: ProcessIdentity): Promise<ProcessStat[]> {
  const space = await peek(`/proc/${init.pid}/ns/pid`, readlink)
  if (space === null || !isAlive(init)) return []
  return matching(async (pid) => (await peek(`/proc/${pid}/ns/pid`, readlink)) === space)
}

/** All living processes of a session, and those elsewhere whose environment carries `tag` (`NAME=value`). */
export async function taggedProcesses(session: number | null, tag: string): Promise<ProcessStat[]> {
  if (process.platform !== 'linux') {
    const stat = session === null ? null : statOf(session)
    return stat === null ? [] : [stat]
  }
  return matching(async (pid) => {
    if (session !== null && statOf(pid)?.session === session) return true
    const environ = await peek(`/proc/${pid}/environ`, (p) => readFile(p, 'latin1'))
    return environ?.split('\0').includes(tag) ?? false
  })
}

/** Who listens on a port of this machine. */
export interface Listeners {
  /** Where one of the given processes can be reached, or null. */
  readonly own: string | null
  /** Somebody listens there, and none of the given processes. */
  readonly foreign: boolean
}

const LISTEN = '0A'
const MAPPED = '0000000000000000FFFF0000'

/** The address that reaches what is bound to this hexadecimal address of /proc/net/tcp or tcp6, and nothing else. */
function reachable(hex: string): string {
  if (hex.startsWith(MAPPED)) return reachable(hex.slice(MAPPED.length))
  // Of everything that is bound to `::`, ::1 cannot be taken by an IPv4 listener of somebody else.
  if (hex.length > 8) return '::1'
  if (hex === '00000000') return '127.0.0.1'
  const bytes = hex.match(/../g) ?? []
  return bytes
    .toReversed()
    .map((b) => Number.parseInt(b, 16))
    .join('.')
}

/** Proof that a process listens is the socket's inode among its descriptors. */
export async function listenersOf(processes: readonly ProcessIdentity[], port: number): Promise<Listeners> {
  const tables = await Promise.all(
    ['/proc/net/tcp', '/proc/net/tcp6'].map((p) => peek(p, (f) => readFile(f, 'latin1'))),
  )
  const sockets = new Map<string, string>()
  for (const line of tables.flatMap((t) => (t ?? '').split('\n').slice(1))) {
    const [, local = '', , state, , , , , , inode = ''] = line.trim().split(/\s+/)
    const [address = '', hexPort = ''] = local.split(':')
    if (state === LISTEN && Number.parseInt(hexPort, 16) === port)
      sockets.set(`socket:[${inode}]`, reachable(address))
  }
  if (sockets.size === 0) return { own: null, foreign: false }
  for (const { pid } of processes) {
    const names = await readdir(`/proc/${pid}/fd`).catch(() => [] as string[]) // ended meanwhile: holds nothing
    for (const name of names) {
      const own = sockets.get((await peek(`/proc/${pid}/fd/${name}`, readlink)) ?? '')
      if (own !== undefined) return { own, foreign: false }
    }
  }
  return { own: null, foreign: true }
}

/** Resident memory, bytes; 0 for one that has ended. */
export async function residentBytes(pid: number): Promise<number> {
  const status = await peek(`/proc/${pid}/status`, (p) => readFile(p, 'latin1'))
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status ?? '')?.[1] ?? 0) * 1024
}
