import { expect, it } from 'vitest'
import * as life from '../../src/api/intents/lifecycle.ts'
import { OK } from '../../src/engines/simulated/faults.ts'
import { createPlane, type Plane } from '../prove/plane.ts'
import { createUser } from '../prove/user.ts'

/** Lets time pass in small pieces until it is so. */
async function until(plane: Plane, what: string, condition: () => boolean): Promise<void> {
  for (let ms = 0; !condition(); ms += 10) {
    if (ms > 60_000) throw new Error(`not within a minute: ${what}`)
    await plane.pass(10)
  }
}

it('a retry that was decided before a stop was acknowledged is not sent after it', async () => {
  const plane = createPlane({ seed: 'stale', latencyMs: 400 })
  const user = createUser(plane, true)
  let sent = 0
  plane.fault = (call) => (call === 'startInstance' && sent++ === 0 ? { kind: 'hang' } : OK)
  const id = await user.create()
  await until(plane, 'it is being started', () => sent === 1)
  plane.crashNow()
  // The next process finds the row as the one before has left it, and looks at the engine for a while.
  await plane.alive()
  await plane.pass(100)
  await user.ask(id, life.stop)
  await plane.pass(30_000)
  expect(plane.monitor.violations).toEqual([])
  expect(user.get(id).status.phase).toBe('Stopped')
  expect(sent, 'starts that were sent').toBe(1)
  plane.crashNow()
})
