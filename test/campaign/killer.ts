import { setTimeout as delay } from 'node:timers/promises'
import type { TestServer } from '../support/server.ts'
import type { History } from './model.ts'
import type { Random } from './random.ts'

/** Steps at which a part of the kills is placed: right before or after an effect, where chance alone rarely hits. */
const STEPS = {
  'start-instance': 6,
  'stop-instance': 6,
  'create-instance': 4,
  'remove-instance': 4,
  'create-volume': 3,
  'remove-volume': 3,
  'pause-instance': 3,
  'unpause-instance': 3,
}
const POINTS = ['before-intent', 'after-intent', 'after-effect']
/** How long the server may live before it is killed, ms: about two of its start-ups. */
const LIFE_MS = 1_200
/** How long a failpoint is waited for, ms; then the kill comes anyway. */
const FAILPOINT_MS = 4_000

export interface KillOptions {
  readonly server: TestServer
  readonly random: Random
  readonly history: Pick<History, 'count'>
  /** How long the server lives at most once it is ready, ms. */
  readonly lifeMs?: number
  /** It is killed although it was not ready within this, ms. */
  readonly readyMs?: number
}

export interface KillerOptions extends KillOptions {
  readonly kills: number
  readonly progress: (done: number) => void
}

/**
 * Kills the server once and starts it again, without waiting for it: mostly at a random time after it was ready,
 * sometimes while it starts, sometimes at a named point of a step, sometimes leaving it dead for a while.
 */
export async function killOnce({
  server,
  random,
  history,
  lifeMs = LIFE_MS,
  readyMs,
}: KillOptions): Promise<void> {
  const how = random.weighted({ ready: 60, starting: 15, failpoint: 25 })
  if (how === 'failpoint') {
    const failpoint = `${random.weighted(STEPS)}:${random.pick(POINTS)}`
    await server.kill()
    await server.start({ failpoint, waitReady: false })
    history.count((await server.ended(FAILPOINT_MS)) ? 'killed at a step' : 'killed while up')
  } else if (how === 'starting') {
    await server.kill()
    await server.start({ waitReady: false })
    await delay(random.int(0, 600))
    history.count('killed while starting')
  } else {
    const ready = await within(server, readyMs)
    if (ready) await delay(random.int(0, lifeMs))
    history.count(ready ? 'killed while up' : 'killed while starting')
  }
  await server.kill()
  if (random.chance(0.1)) await delay(random.int(200, 1_500))
  await server.start({ waitReady: false })
}

/** Whether it was ready in time; without a limit of the caller's, one that is not is an error. */
async function within(server: TestServer, readyMs: number | undefined): Promise<boolean> {
  try {
    await server.ready(readyMs)
    return true
  } catch (error) {
    if (readyMs === undefined || !server.running()) throw error
    return false
  }
}

/** Kills the server again and again. Leaves a server that runs and is ready. */
export async function killRepeatedly(o: KillerOptions): Promise<void> {
  for (let n = 1; n <= o.kills; n++) {
    await killOnce(o)
    o.progress(n)
  }
  await o.server.ready()
}
