/**
 * `node test/campaign/daemon.ts [--quick]`: a private Docker daemon is stopped in order, killed, and power-cut, each
 * with the server up and with the server killed at the same time, under workloads of every kind of exit.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Sandbox } from '@holdfast/client'
import { type PrivateDaemon, startPrivateDaemon } from '../support/docker-daemon.ts'
import { rawJson } from '../support/docker-http.ts'
import {
  assertData,
  engineId,
  gone,
  leaveNothing,
  make,
  putData,
  reach,
  read,
  startsOf,
  workspaceUid,
} from './stage.ts'
import { until } from './until.ts'
import { openRig, type Rig } from './world.ts'

/** From the daemon's return until everything is as it was wanted, ms. */
const RETURN_LIMIT_MS = 90_000
/** From the daemon's end until the API says that it does not know, ms: two health probes. */
const UNKNOWN_LIMIT_MS = 25_000
/** An exit seen is certain only after the same engine run answered again; then nothing may change any more, ms. */
const SETTLED_MS = 3_000

const COUNT_START = 'echo start >> /sandbox/starts.log'
/** Ends with this status when told TERM, and when it finds `leave`. */
const onTerm = (code: number): string[] => [
  'sh',
  '-c',
  `${COUNT_START}; trap 'exit ${code}' TERM; while :; do if [ -e /sandbox/leave ]; then rm /sandbox/leave; exit ${code}; fi; sleep 0.2 & wait $!; done`,
]
/** Has to be killed, so Docker says 137. */
const ignoresTerm: string[] = [
  'sh',
  '-c',
  `${COUNT_START}; trap '' TERM; while :; do if [ -e /sandbox/leave ]; then rm /sandbox/leave; kill -9 $$; fi; sleep 0.2; done`,
]
/** A job: ends by itself, long before anything happens to the daemon. */
const job = (code: number): string[] => [
  'sh',
  '-c',
  code === 137
    ? `${COUNT_START}; sleep 1; kill -9 $$`
    : code === 143
      ? `${COUNT_START}; sleep 1; kill -TERM $$; sleep 5`
      : `${COUNT_START}; sleep 1; exit ${code}`,
]

const CODES = [0, 137, 143, 255] as const

export type How = 'TERM' | 'KILL' | 'power-cut'

interface Kept {
  readonly id: string
  readonly sum: string
}

interface Cast {
  readonly wanted: readonly Kept[]
  readonly jobs: readonly string[]
  readonly stopped: Kept
  readonly paused: Kept
}

async function keep(rig: Rig, name: string, entrypoint: string[]): Promise<Kept> {
  const { id } = await make(rig, name, { entrypoint, stopGraceSeconds: 1 })
  return { id, sum: await putData(rig.server, id) }
}

async function cast(rig: Rig, tag: string): Promise<Cast> {
  const { server, world } = rig
  const jobs: string[] = []
  for (const code of CODES) {
    const made = await server.client.sandboxes.create({
      name: `job-${code}-${tag}`,
      image: { uri: world.image },
      entrypoint: job(code),
    })
    jobs.push(made.id)
  }
  const wanted: Kept[] = []
  for (const code of CODES)
    wanted.push(await keep(rig, `wanted-${code}-${tag}`, code === 137 ? ignoresTerm : onTerm(code)))
  const stopped = await keep(rig, `stopped-${tag}`, onTerm(0))
  const paused = await keep(rig, `paused-${tag}`, onTerm(0))
  await server.client.sandboxes.stop(stopped.id)
  await reach(server, stopped.id, 'Stopped')
  await server.client.sandboxes.pause(paused.id)
  await reach(server, paused.id, 'Paused')
  for (const id of jobs) await reach(server, id, 'Stopped')
  return { wanted, jobs, stopped, paused }
}

/** What the API promises while the engine is away: reads work, and say that they do not know. */
async function whileAway({ server }: Rig, c: Cast): Promise<void> {
  const [first] = c.wanted
  assert.ok(first)
  await until(
    'its state is Unknown',
    UNKNOWN_LIMIT_MS,
    async () => (await read(server, first.id)).status.state === 'Unknown',
  )
  assert.equal((await server.client.sandboxes.list()).length >= c.wanted.length, true)
  const why = await server.client.sandboxes.explain(first.id)
  assert.deepEqual([why.observed.known, why.engine.ok], [false, false], JSON.stringify(why))
}

/** Ends workloads while no daemon looks: with the exit statuses that an orderly end and a kill have, too. */
async function leave(
  daemon: PrivateDaemon,
  ids: readonly string[],
  uids: ReadonlyMap<string, string>,
): Promise<void> {
  for (const id of ids) writeFileSync(join(daemon.dir, 'data/volumes', uids.get(id) ?? '', '_data/leave'), '')
  await delay(1_000)
}

/** One fate of the daemon. Everything wanted running comes back with its data, and nothing else starts. */
export async function daemonFate(
  rig: Rig,
  daemon: PrivateDaemon,
  how: How,
  serverToo: boolean,
): Promise<void> {
  const { server, world } = rig
  const c = await cast(rig, `${how.toLowerCase()}${serverToo ? '-both' : ''}`)
  const all = [...c.wanted, c.stopped, c.paused]
  const before = new Map<string, Sandbox>()
  const volumes = new Map<string, string>()
  for (const id of [...all.map((k) => k.id), ...c.jobs]) {
    const s = await read(server, id)
    before.set(id, s)
    volumes.set(id, (await server.client.volumes.get(workspaceUid(s))).physicalName)
  }

  if (serverToo) await Promise.all([server.kill(), daemon.stop(how)])
  else await daemon.stop(how)
  if (!serverToo) await whileAway(rig, c)
  // A daemon that was killed alone leaves its containers running: some end meanwhile, seen by nobody.
  if (how === 'KILL')
    await leave(
      daemon,
      c.wanted.map((k) => k.id),
      volumes,
    )
  // With the server up, what is asked for meanwhile is done on return.
  const [, , late] = c.wanted
  if (!serverToo && late !== undefined) await server.client.sandboxes.stop(late.id)
  await daemon.start()
  if (serverToo) await server.start()

  for (const k of c.wanted) {
    if (!serverToo && k === late) {
      await reach(server, k.id, 'Stopped', RETURN_LIMIT_MS)
      await server.client.sandboxes.start(k.id)
    }
    const s = await reach(server, k.id, 'Running', RETURN_LIMIT_MS)
    assert.equal(engineId(s), engineId(before.get(k.id) ?? s), `${s.name}: the same instance, started again`)
    await assertData(server, k.id, k.sum)
    assert.equal(await startsOf(server, k.id), 2, `${s.name}: started once more`)
  }
  const stopped = await reach(server, c.stopped.id, 'Stopped')
  assert.equal(stopped.desired.reason, 'user')
  const paused = await reach(server, c.paused.id, 'Stopped', RETURN_LIMIT_MS)
  assert.match(paused.status.message, /memory/, 'the loss of what was in memory is told')
  await delay(SETTLED_MS)
  for (const id of c.jobs) {
    const s = await reach(server, id, 'Stopped')
    assert.deepEqual([s.desired.state, s.desired.reason], ['stopped', 'exited'], `${s.name} was completed`)
    const { State } = await rawJson<{ State: { StartedAt: string } }>(
      daemon.socketPath,
      'GET',
      `/containers/${engineId(s)}/json`,
    )
    assert.equal(
      Date.parse(State.StartedAt),
      Date.parse(before.get(id)?.instance?.startedAt ?? ''),
      `${s.name} was not started again`,
    )
  }
  for (const k of [c.paused, c.stopped]) {
    await server.client.sandboxes.resume(k.id)
    await reach(server, k.id, 'Running')
    await assertData(server, k.id, k.sum)
  }
  assert.equal(
    (await world.instances((await server.client.info()).installation)).length,
    c.wanted.length + c.jobs.length + 2,
    'one instance per sandbox',
  )
  for (const id of before.keys()) await server.client.sandboxes.remove(id)
  for (const id of before.keys()) await gone(server, id)
  await leaveNothing(rig)
}

export interface DaemonRig {
  readonly rig: Rig
  readonly daemon: PrivateDaemon
  destroy(): Promise<void>
}

export async function openDaemonRig(): Promise<DaemonRig> {
  const daemon = await startPrivateDaemon()
  try {
    const rig = await openRig('docker', daemon.socketPath)
    await rig.server.start()
    return {
      rig,
      daemon,
      async destroy() {
        // The daemon goes with all that it has, so nothing needs to be removed from it.
        await rig.server.kill()
        await daemon.destroy()
        await rig.server.destroy()
      },
    }
  } catch (error) {
    await daemon.destroy()
    throw error
  }
}

export const FATES: readonly (readonly [How, boolean])[] = [
  ['TERM', false],
  ['power-cut', true],
  ['KILL', false],
  ['TERM', true],
  ['power-cut', false],
  ['KILL', true],
]
/** How many of them a quick run takes. */
const QUICK_FATES = 2

/** One fate on a daemon of its own, so that a failed one leaves nothing to the next. */
async function runFate(how: How, serverToo: boolean): Promise<boolean> {
  const title = `daemon ${how}${serverToo ? ', server killed with it' : ', server up'}`
  const began = performance.now()
  const opened = await openDaemonRig()
  try {
    await daemonFate(opened.rig, opened.daemon, how, serverToo)
    process.stdout.write(`ok   ${title} (${((performance.now() - began) / 1000).toFixed(1)} s)\n`)
    return true
  } catch (error) {
    process.stdout.write(`FAIL ${title} (${((performance.now() - began) / 1000).toFixed(1)} s)\n`)
    process.stderr.write(
      `${error instanceof Error ? error.stack : String(error)}\n${opened.rig.server.log()}\n`,
    )
    return false
  } finally {
    await opened.destroy()
  }
}

async function main(): Promise<number> {
  const fates = process.argv.includes('--quick') ? FATES.slice(0, QUICK_FATES) : FATES
  let passed = 0
  for (const [how, serverToo] of fates) if (await runFate(how, serverToo)) passed++
  process.stdout.write(`daemon campaign: ${passed} passed, ${fates.length - passed} failed\n`)
  return passed === fates.length ? 0 : 1
}

if (import.meta.main) process.exit(await main())
