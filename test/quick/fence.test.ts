import { expect, it } from 'vitest'
import { createControlPlane } from '../support/control-plane.ts'
import { end } from '../support/trouble.ts'

it('one that was replaced after its commit calls no engine', async () => {
  const cp = createControlPlane({
    onPoint(kind, point) {
      // Another control plane takes over between the commit of the intent and the send.
      if (kind === 'create-instance' && point === 'after-intent')
        cp.store.database.exec("UPDATE meta SET value = '99' WHERE key = 'epoch'")
    },
  })
  await cp.start()
  await cp.add()
  await cp.clock.advance(60_000)
  expect(cp.world.volumes.size).toBe(1)
  expect(cp.world.containers.size).toBe(0)
  expect(cp.fatals.length).toBeGreaterThan(0)
  await end(cp)
})
