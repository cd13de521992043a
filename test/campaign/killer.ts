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

export interface KillerOptions {
  readonly server: TestServer
  readonly kills: number
  readonly random: Random
  readonly history: History
  readonly progress: (done: number) => void
}

/**
 * Kills the server again and again: mostly at a random time after it was ready, sometimes while it starts, sometimes
 * at a named point of a step, sometimes leaving it dead for a while. Leaves a server that runs and is ready.
 */
export async function killRepeatedly({
  server,
  kills,
  random,
  history,
  progress,
}: KillerOptions): Promise<void> {
  for (let n = 1; n <= kills; n++) {
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
      await server.ready()
      await delay(random.int(0, LIFE_MS))
      history.count('killed while up')
    }
    await server.kill()
    if (random.chance(0.1)) await delay(random.int(200, 1_500))
    await server.start({ waitReady: false })
    progress(n)
  }
  await server.ready()
}
