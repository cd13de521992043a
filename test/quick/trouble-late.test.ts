import { afterEach, describe, expect, it } from 'vitest'
import * as life from '../../src/api/intents/lifecycle.ts'
import { createControlPlane, type ControlPlane, type ControlPlaneOptions } from '../support/control-plane.ts'
import { ask, calls, end, first, firstVolume, nameOf, sure } from '../support/trouble.ts'

let cp: ControlPlane

async function start(options: ControlPlaneOptions): Promise<void> {
  cp = createControlPlane(options)
  await cp.start()
}

afterEach(async () => {
  await end(cp)
})

describe('calls that land after they were given up', () => {
  it('a stop that lands after its limit does not undo the start that was acknowledged since', async () => {
    await start({ faults: first('stopInstance', { kind: 'late', afterMs: 45_000 }) })
    const id = await cp.add()
    await cp.reaches(id, 'Running')
    await ask(cp, id, life.stop)
    await cp.clock.settle()
    await ask(cp, id, life.start)
    await cp.converge()
    expect(await cp.get(id)).toMatchObject({ desired: 'running', status: { phase: 'Running' } })
  })

  it('nor does one whose instance had ended by another cause before', async () => {
    await start({ faults: first('stopInstance', { kind: 'late', afterMs: 14_000 }) })
    const id = await cp.add()
    const record = await cp.reaches(id, 'Running')
    await ask(cp, id, life.stop)
    await cp.clock.settle()
    cp.behind.kill(nameOf(record))
    await cp.reaches(id, 'Stopped')
    await ask(cp, id, life.start)
    await cp.reaches(id, 'Running')
    await cp.converge()
    expect(await cp.get(id)).toMatchObject({ desired: 'running', status: { phase: 'Running' } })
  })

  it('a create that lands after its instance was removed by somebody revives nothing and leaves no volume', async () => {
    await start({ faults: first('createInstance', { kind: 'late', afterMs: 60_000 }) })
    const id = await cp.add()
    const record = await cp.reaches(id, 'Running')
    await cp.clock.advance(50_000)
    expect(cp.world.volumes.size).toBe(1)
    cp.behind.remove(nameOf(record))
    await cp.reaches(id, 'Lost')
    await cp.converge()
    await cp.converge()
    expect((await cp.get(id)).status.phase).toBe('Lost')
    expect(cp.world.containers.size).toBe(0)
    expect([...cp.world.volumes.keys()]).toEqual([(await firstVolume(cp)).physicalName])
    expect(await cp.store.read((tx) => tx.quarantine())).toEqual([])
  })
})

it('an instance whose mount comes out wrong each time is made again with a growing wait, and never started', async () => {
  let wrong = 0
  await start({
    onPoint(kind, point) {
      if (kind !== 'create-instance' || point !== 'after-effect') return
      for (const c of cp.world.containers.values())
        Object.assign(sure(c.mounts[0], 'mount'), { volume: `another-${(wrong += 1)}` })
    },
  })
  await cp.add()
  await cp.clock.advance(30_000)
  expect(calls(cp, 'createInstance')).toBeGreaterThan(1)
  expect(calls(cp, 'createInstance')).toBeLessThan(10)
  expect(calls(cp, 'startInstance')).toBe(0)
})
