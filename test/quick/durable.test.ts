import { expect, it } from 'vitest'
import type { MemoryStore } from '../../src/store/sqlite/testing.ts'
import { createControlPlane } from '../support/control-plane.ts'
import { BOX, startServer } from './api-support/server.ts'

/** Of `PRAGMA synchronous`: each commit waits for the disk. */
const FULL = 2

function synchronous(store: MemoryStore): unknown {
  return store.database.prepare('PRAGMA synchronous').get()?.['synchronous']
}

/** The store's next commit has to ask for the disk by itself. */
async function relax(store: MemoryStore): Promise<void> {
  await store.write(false, (tx) => tx.setMeta('test', 'status only'))
  expect(synchronous(store)).not.toBe(FULL)
}

it('what the API acknowledges was committed to the disk: create, wish, update, volume, purge, delete', async () => {
  const server = await startServer()
  try {
    const acknowledged = async (
      method: string,
      path: string,
      body?: object,
    ): Promise<{ id: string; uid: string }> => {
      await relax(server.store)
      const answer = await server.call(method, `/v1${path}`, body)
      expect(answer.status, `${method} ${path}: ${JSON.stringify(answer.body)}`).toBeLessThan(300)
      expect(synchronous(server.store), `${method} ${path}`).toBe(FULL)
      return answer.body
    }
    const { id } = await acknowledged('POST', '/sandboxes', { ...BOX, timeout: 60 })
    await acknowledged('POST', `/sandboxes/${id}/stop`)
    await acknowledged('POST', `/sandboxes/${id}/start`)
    await acknowledged('PATCH', `/sandboxes/${id}`, { env: { A: '1' } })
    const expiresAt = new Date(Date.now() + 3_600_000).toISOString()
    await acknowledged('POST', `/sandboxes/${id}/renew-expiration`, { expiresAt })
    const { uid } = await acknowledged('POST', '/volumes', { claimName: 'data' })
    await acknowledged('DELETE', `/volumes/${uid}`)
    await acknowledged('DELETE', `/sandboxes/${id}`)
  } finally {
    await server.close()
  }
})

it('an intent is on disk before its effect is begun', async () => {
  const seen: string[] = []
  const cp = createControlPlane({
    onPoint(kind, point) {
      if (point === 'after-intent') seen.push(`${kind} ${String(synchronous(cp.store))}`)
    },
  })
  await cp.start()
  const id = await cp.add()
  await cp.reaches(id, 'Running')
  await cp.want(id, 'stopped')
  await cp.reaches(id, 'Stopped')
  await cp.want(id, 'deleted')
  await cp.reaches(id, 'Terminated')
  await cp.converge()
  expect(seen).toEqual(
    [
      'create-volume',
      'create-instance',
      'start-instance',
      'stop-instance',
      'remove-instance',
      'remove-volume',
    ].map((kind) => `${kind} ${FULL}`),
  )
  await cp.stop()
})
