import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { randomBytes } from 'node:crypto'
import { type Clock, sleep } from '../../model/clock.ts'
import { idFromBytes, type Ids } from '../../model/ids.ts'
import type { Call } from '../engine.ts'
import { messageOf } from './errors.ts'
import { createLocalEngine } from './local.ts'

/** The whole probe, milliseconds: a machine on which it takes longer has no use for the engine either. */
const PROBE_LIMIT_MS = 15_000

/** A machine's own time and chance: what is asked here is the machine, never a test's world. */
const clock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(ms, fn) {
    const timer = setTimeout(fn, ms)
    return () => clearTimeout(timer)
  },
}
const ids: Ids = {
  next: () => idFromBytes(randomBytes(16)),
  secret: () => randomBytes(32).toString('base64url'),
  random: () => randomBytes(1).readUInt8() / 256,
}

/**
 * Whether this machine gives namespaces, found out by making an instance and running it to its end: settings can read
 * as allowed where the kernel still refuses. `dir` is where state will lie, since some file systems cannot carry a
 * writable layer; absent, the temporary directory.
 */
export async function probeIsolation(dir?: string): Promise<'namespaces' | { readonly none: string }> {
  if (process.platform !== 'linux')
    return { none: `namespaces are a part of Linux, and this is ${process.platform}` }
  const root = await mkdtemp(join(dir ?? tmpdir(), 'holdfast-probe-'))
  const call: Call = { limitMs: PROBE_LIMIT_MS }
  try {
    const engine = createLocalEngine({
      id: 'local',
      root,
      isolation: 'namespaces',
      allowedHostPaths: [],
      clock,
      ids,
    })
    const { id } = await engine.createInstance(
      {
        name: 'probe',
        labels: {},
        image: 'host',
        entrypoint: ['true'],
        env: {},
        limits: {},
        mounts: [],
        workingDir: null,
        user: null,
        hostname: 'probe',
      },
      call,
    )
    try {
      await engine.startInstance(id, call)
      const end = clock.monotonic() + PROBE_LIMIT_MS
      let facts = await engine.inspectInstance(id, call)
      for (
        ;
        facts?.state === 'running' && clock.monotonic() < end;
        facts = await engine.inspectInstance(id, call)
      )
        await sleep(clock, 5)
      return facts?.exitCode === 0
        ? 'namespaces'
        : { none: `a program in namespaces ended with ${facts?.exitCode ?? 'nothing'}` }
    } finally {
      await engine.removeInstance(id, call)
    }
  } catch (error) {
    return { none: messageOf(error) }
  } finally {
    await rm(root, { recursive: true, force: true })
  }
}
