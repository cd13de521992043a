import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Engine } from '../../src/engines/engine.ts'
import { createLocalEngine } from '../../src/engines/local/index.ts'
import { systemClock, systemIds } from '../../src/server/system.ts'
import type { Subject } from './conformance.ts'

export interface LocalRig {
  readonly engine: Engine
  readonly root: string
  /** A directory under the allowed host paths. */
  readonly allowed: string
  /** The host's pid of an instance's process 1, and of its workload. */
  pids(name: string): Promise<{ init: number; work: number }>
  cleanup(): Promise<void>
}

export function openLocal(
  root: string,
  isolation: 'namespaces' | 'none',
  allowed: readonly string[] = [],
): Engine {
  return createLocalEngine({
    id: 'local',
    root,
    isolation,
    allowedHostPaths: allowed,
    clock: systemClock(),
    ids: systemIds(),
  })
}

export async function localRig(isolation: 'namespaces' | 'none'): Promise<LocalRig> {
  const base = await realpath(await mkdtemp(join(tmpdir(), 'holdfast-local-')))
  const root = join(base, 'state')
  const allowed = join(base, 'allowed')
  await mkdir(allowed)
  const engine = openLocal(root, isolation, [allowed])
  // The system's clock keeps no process alive, and the suite waits for nothing else at times.
  const alive = setInterval(() => undefined, 1_000)
  return {
    engine,
    root,
    allowed,
    async pids(name) {
      const state = JSON.parse(await readFile(join(root, 'instances', name, 'state.json'), 'utf8')) as {
        init: { pid: number }
        work: { pid: number }
      }
      return { init: state.init.pid, work: state.work.pid }
    },
    async cleanup() {
      clearInterval(alive)
      await engine.close()
      const left = await stillThere(base)
      await rm(base, { recursive: true, force: true })
      if (left.length > 0) throw new Error(`left behind by the engine: ${left.join('; ')}`)
    },
  }
}

/** How long processes that are on their way out may take on a busy machine, ms. */
const LEAVING_LIMIT_MS = 10_000

/** What does not leave by itself: a start that was refused ends its own processes, and answers before they are gone. */
async function stillThere(base: string): Promise<string[]> {
  const end = performance.now() + LEAVING_LIMIT_MS
  for (;;) {
    const left = await leftovers(base)
    if (left.length === 0 || performance.now() > end) return left
    await delay(50)
  }
}

/** Processes that still work, write or mount below a directory. */
async function leftovers(base: string): Promise<string[]> {
  const found: string[] = []
  for (const pid of (await readdir('/proc')).filter((n) => /^\d+$/.test(n) && Number(n) !== process.pid)) {
    const text = async (name: string): Promise<string> =>
      readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '')
    const link = async (name: string): Promise<string> => readlink(`/proc/${pid}/${name}`).catch(() => '')
    const seen = [await link('cwd'), await link('fd/1'), await text('mountinfo')]
    if (seen.some((s) => s.includes(base)))
      found.push(`${pid} ${(await text('cmdline')).replaceAll('\0', ' ').slice(0, 80)}`)
  }
  return found
}

const BUSYBOX = ['/bin/busybox', '/usr/bin/busybox'].find((path) => existsSync(path))

/** Why there is no image that is a directory here, or null. */
export const busyboxMissing: string | null =
  BUSYBOX === undefined ? 'the test image needs a static busybox: apt-get install busybox-static' : null

/** A root file system in a directory, with nothing of the host's: busybox, and what the suite seeds from. */
export async function busyboxImage(rig: LocalRig): Promise<{ image: string; path: string }> {
  if (BUSYBOX === undefined) throw new Error(busyboxMissing ?? '')
  const dir = join(rig.allowed, 'busybox')
  await mkdir(join(dir, 'bin'), { recursive: true })
  await copyFile(BUSYBOX, join(dir, 'bin/busybox'))
  for (const applet of execFileSync(BUSYBOX, ['--list'], { encoding: 'utf8' }).trim().split('\n'))
    if (applet !== 'busybox') await symlink('busybox', join(dir, 'bin', applet))
  await mkdir(join(dir, 'seed/sub'), { recursive: true })
  await mkdir(join(dir, 'tmp'))
  await chmod(join(dir, 'tmp'), 0o1777)
  await writeFile(join(dir, 'seed/hello.txt'), 'hello\n')
  await chmod(join(dir, 'seed/hello.txt'), 0o640)
  await writeFile(join(dir, 'seed/run.sh'), '#!/bin/sh\n')
  await chmod(join(dir, 'seed/run.sh'), 0o755)
  await symlink('hello.txt', join(dir, 'seed/link'))
  await writeFile(join(dir, 'seed/sub/deep.txt'), 'deep\n')
  return { image: `dir:${dir}`, path: '/seed' }
}

const nameOf = (id: string): string => id.slice(0, id.lastIndexOf('@'))

export async function localSubject(
  rig: LocalRig,
  isolation: 'namespaces' | 'none',
  image: 'host' | 'busybox' = 'host',
): Promise<Subject> {
  const scratch = join(rig.root, '../scratch')
  const hostDir = join(rig.allowed, 'mounted')
  await mkdir(scratch)
  await mkdir(hostDir)
  const isolated = isolation === 'namespaces'
  const seeded = isolated && busyboxMissing === null ? await busyboxImage(rig) : undefined
  if (image === 'busybox' && seeded === undefined)
    throw new Error('a directory as the image is for namespaces')
  return {
    engine: rig.engine,
    image: image === 'busybox' ? (seeded?.image ?? '') : 'host',
    missingImage: 'dir:/holdfast-no-such-image',
    hostDir,
    ...(seeded === undefined ? {} : { seeded }),
    ...(isolated ? {} : { scratch }),
    async killBehind(id) {
      process.kill((await rig.pids(nameOf(id))).init, 'SIGKILL')
    },
    async removeBehind(id) {
      const { init } = await rig.pids(nameOf(id))
      // Without namespaces the end of process 1 ends nothing else.
      process.kill(isolated ? init : -init, 'SIGKILL')
      await rename(join(rig.root, 'instances', nameOf(id)), join(scratch, randomBytes(6).toString('hex')))
    },
    cleanup: () => rig.cleanup(),
  }
}
