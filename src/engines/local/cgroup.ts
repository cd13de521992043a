import { createHash } from 'node:crypto'
import { accessSync, constants, existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { readFile, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Clock, sleep } from '../../model/clock.ts'
import type { Limits } from '../../model/records.ts'
import { errnoOf, isAbsent } from './errors.ts'

type Controller = 'memory' | 'pids' | 'cpu' | 'freezer'

/** Where a controller can be used, and in which of the kernel's two interfaces. */
interface Place {
  readonly dir: string
  readonly version: 1 | 2
}

/**
 * Limits for instances, as root. A key is an instance's name; its groups exist from its start (the freezer's: from its
 * first pause) until its end is recorded. Only what is asked for is made: joining a group waits for the whole kernel.
 */
export interface Cgroups {
  has(controller: Controller): boolean
  /** Makes the groups that these limits need, and brings a process into them before it has children. */
  limit(key: string, limits: Limits, pid: number): Promise<void>
  /** Files that take a pid each to bring one more process under the limits. */
  procsFiles(key: string, limits: Limits): readonly string[]
  /** Freezes all that `members` tells, also what they give birth to meanwhile. */
  freeze(key: string, members: () => Promise<readonly number[]>): Promise<void>
  thaw(key: string): Promise<void>
  isFrozen(key: string): Promise<boolean>
  /** Null where the group is gone. */
  oomKills(key: string): Promise<number | null>
  /** Null where no limit made the kernel count it. */
  memoryBytes(key: string): Promise<number | null>
  /** Removes the groups of a dead instance; what is gone already is fine. */
  remove(key: string): Promise<void>
}

const CPU_PERIOD_US = 100_000
/** The kernel's least quota. */
const CPU_QUOTA_MIN_US = 1_000
/** How often a pause looks for processes that were born meanwhile; children of a member are members by themselves. */
const GATHER_ROUNDS = 20
/** How long the kernel may take to freeze or to let go of a group, milliseconds. */
const SETTLE_LIMIT_MS = 2_000

function mounts(): { v1: Map<string, string>; v2: string | null } {
  const v1 = new Map<string, string>()
  let v2: string | null = null
  for (const line of readFileSync('/proc/mounts', 'utf8').split('\n')) {
    const [, dir = '', type, options = ''] = line.split(' ')
    if (type === 'cgroup2') v2 ??= dir
    if (type === 'cgroup') for (const option of options.split(',')) if (!v1.has(option)) v1.set(option, dir)
  }
  return { v1, v2 }
}

/** By doing: a mounted hierarchy can be read-only, or one that this process may not use. */
function usable(dir: string, probe: string): boolean {
  try {
    accessSync(dir, constants.W_OK)
    const made = join(dir, probe)
    if (!existsSync(made)) mkdirSync(made)
    rmdirSync(made)
    return true
  } catch {
    return false // Whatever the reason is, limits are then reported as not enforced.
  }
}

function findV2(dir: string, controller: Controller): boolean {
  if (controller === 'freezer') return true
  try {
    const has = (file: string): boolean =>
      readFileSync(join(dir, file), 'utf8').split(/\s+/).includes(controller)
    if (!has('cgroup.controllers')) return false
    if (!has('cgroup.subtree_control')) writeFileSync(join(dir, 'cgroup.subtree_control'), `+${controller}`)
    return has('cgroup.subtree_control')
  } catch {
    return false // As above: not usable means not enforced.
  }
}

/** Null when no controller can be used: not root, not Linux, or a container without delegation. */
export function openCgroups(root: string, clock: Clock): Cgroups | null {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return null
  const prefix = `holdfast-${createHash('sha256').update(root).digest('hex').slice(0, 8)}`
  const { v1, v2 } = mounts()
  const places = new Map<Controller, Place>()
  const probed = new Map<string, boolean>()
  const works = (dir: string): boolean => {
    const known = probed.get(dir) ?? usable(dir, `${prefix}-probe-${process.pid}`)
    probed.set(dir, known)
    return known
  }
  for (const controller of ['memory', 'pids', 'cpu', 'freezer'] as const) {
    const old = v1.get(controller)
    if (old !== undefined && works(old)) places.set(controller, { dir: old, version: 1 })
    else if (old === undefined && v2 !== null && works(v2) && findV2(v2, controller))
      places.set(controller, { dir: v2, version: 2 })
  }
  return places.size === 0 ? null : cgroupsAt(places, prefix, clock)
}

function cgroupsAt(places: ReadonlyMap<Controller, Place>, prefix: string, clock: Clock): Cgroups {
  const hash = (key: string): string => createHash('sha256').update(key).digest('hex').slice(0, 24)
  const dirsOf = (key: string, controllers: readonly Controller[]): string[] => [
    ...new Set(
      [...places]
        .filter(([c]) => controllers.includes(c))
        .map(([, p]) => join(p.dir, `${prefix}-${hash(key)}`)),
    ),
  ]
  const needed = (limits: Limits): Controller[] => [
    ...(limits.memoryBytes === undefined ? [] : (['memory'] as const)),
    ...(limits.pids === undefined ? [] : (['pids'] as const)),
    ...(limits.cpuMillis === undefined ? [] : (['cpu'] as const)),
  ]
  const file = (key: string, c: Controller, old: string, current: string): string | null => {
    const place = places.get(c)
    return place === undefined
      ? null
      : join(place.dir, `${prefix}-${hash(key)}`, place.version === 1 ? old : current)
  }
  const read = async (path: string | null): Promise<string | null> => {
    if (path === null) return null
    try {
      return await readFile(path, 'utf8')
    } catch (error) {
      if (isAbsent(error) || errnoOf(error) === 'ENODEV') return null
      throw error
    }
  }
  const set = async (path: string | null, value: string): Promise<void> => {
    if (path !== null) await writeFile(path, value)
  }
  const until = async (what: string, test: () => Promise<boolean>): Promise<void> => {
    for (let waited = 0; !(await test()); waited += 10) {
      if (waited > SETTLE_LIMIT_MS) throw new Error(`${what} took longer than ${SETTLE_LIMIT_MS} ms`)
      await sleep(clock, 10)
    }
  }

  async function setLimits(key: string, limits: Limits): Promise<void> {
    const { memoryBytes, cpuMillis, pids } = limits
    if (memoryBytes !== undefined) {
      await set(file(key, 'memory', 'memory.limit_in_bytes', 'memory.max'), String(memoryBytes))
      // Without its own limit, swap would be memory beyond the limit. Some kernels have no swap accounting.
      const swap = file(key, 'memory', 'memory.memsw.limit_in_bytes', 'memory.swap.max')
      if (swap !== null && existsSync(swap))
        await set(swap, places.get('memory')?.version === 1 ? String(memoryBytes) : '0')
    }
    if (pids !== undefined) await set(file(key, 'pids', 'pids.max', 'pids.max'), String(pids))
    if (cpuMillis !== undefined) {
      const quota = Math.max(CPU_QUOTA_MIN_US, Math.round((cpuMillis * CPU_PERIOD_US) / 1000))
      const one = places.get('cpu')?.version === 1
      await set(
        file(key, 'cpu', 'cpu.cfs_quota_us', 'cpu.max'),
        one ? String(quota) : `${quota} ${CPU_PERIOD_US}`,
      )
    }
  }

  async function removeOne(dir: string): Promise<void> {
    await until(`the removal of ${dir}`, async () => {
      try {
        await rmdir(dir)
        return true
      } catch (error) {
        if (isAbsent(error)) return true
        if (errnoOf(error) === 'EBUSY') return false // its last processes are on their way out
        throw error
      }
    })
  }

  const procs = (dir: string): string => join(dir, 'cgroup.procs')
  const freezer = (
    key: string,
    frozen: boolean,
  ): { path: string | null; value: string; seen: string | null; mark: string } => {
    const one = places.get('freezer')?.version === 1
    const value = one ? (frozen ? 'FROZEN' : 'THAWED') : frozen ? '1' : '0'
    return {
      path: file(key, 'freezer', 'freezer.state', 'cgroup.freeze'),
      value,
      seen: file(key, 'freezer', 'freezer.state', 'cgroup.events'),
      mark: one ? value : `frozen ${value}`,
    }
  }

  return {
    has: (controller) => places.has(controller),
    procsFiles: (key, limits) => dirsOf(key, needed(limits)).map(procs),
    async limit(key, limits, pid) {
      for (const dir of dirsOf(key, needed(limits))) if (!existsSync(dir)) mkdirSync(dir)
      await setLimits(key, limits)
      for (const dir of dirsOf(key, needed(limits))) await writeFile(procs(dir), String(pid))
    },
    async freeze(key, members) {
      const [dir = ''] = dirsOf(key, ['freezer'])
      if (!existsSync(dir)) mkdirSync(dir)
      const inside = new Set<number>()
      for (let round = 0; round < GATHER_ROUNDS; round++) {
        const outside = (await members()).filter((pid) => !inside.has(pid))
        if (outside.length === 0) break
        for (const pid of outside) {
          inside.add(pid)
          await writeFile(procs(dir), String(pid)).catch((error: unknown) => {
            if (errnoOf(error) !== 'ESRCH') throw error // it has ended
          })
        }
      }
      const { path, value, seen, mark } = freezer(key, true)
      await set(path, value)
      await until('the freeze', async () => ((await read(seen)) ?? '').includes(mark))
    },
    async thaw(key) {
      const { path, value, seen, mark } = freezer(key, false)
      if (path === null || !existsSync(path)) return
      await set(path, value)
      await until('the thaw', async () => ((await read(seen)) ?? '').includes(mark))
    },
    async isFrozen(key) {
      const { seen, mark } = freezer(key, true)
      return ((await read(seen)) ?? '').includes(mark)
    },
    async oomKills(key) {
      const text = await read(file(key, 'memory', 'memory.oom_control', 'memory.events'))
      return text === null ? null : Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0)
    },
    async memoryBytes(key) {
      const text = await read(file(key, 'memory', 'memory.usage_in_bytes', 'memory.current'))
      return text === null ? null : Number(text)
    },
    async remove(key) {
      for (const dir of dirsOf(key, [...places.keys()])) await removeOne(dir)
    },
  }
}
