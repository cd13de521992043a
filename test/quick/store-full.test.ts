import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { openSqliteStore } from '../../src/store/sqlite/index.ts'
import { realClock, realIds, sandboxRecord } from './store-support/fixtures.ts'
import { scratch } from './store-support/process.ts'

const made = scratch()
afterEach(() => made.clean())

const MOUNT_BYTES = 2 * 1024 * 1024

/** A file system of 2 MiB, or the reason why there is none. */
function smallDisk(dir: string): string | null {
  mkdirSync(dir)
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${MOUNT_BYTES}`, 'holdfast-test', dir])
  if (mounted.status !== 0) return `no tmpfs can be mounted here: ${String(mounted.stderr ?? mounted.error)}`
  made.later(() => spawnSync('umount', ['-l', dir]))
  return null
}

test('on a full disk a write fails whole, reads go on, and with space again so do writes', async (context) => {
  const disk = made.dir()
  const reason = smallDisk(disk)
  if (reason !== null) return context.skip(reason)
  const dir = join(disk, 'state')
  const ballast = join(disk, 'ballast')
  const options = { dir, clock: realClock, ids: realIds }
  const store = await openSqliteStore(options)
  made.later(() => store.close())
  const insert = (id: string): Promise<void> =>
    store.write(true, async (tx) => {
      await tx.insertSandbox(sandboxRecord({ id, metadata: { filler: 'x'.repeat(8000) } }))
      await tx.appendEvent({ subject: 'sandbox', id, type: 'Normal', reason: 'Made', message: '' }, 1)
    })

  await insert('a0')
  const free = statfsSync(disk)
  writeFileSync(ballast, Buffer.alloc(Math.max(0, free.bavail * free.bsize - 128 * 1024)))
  const acked = ['a0']
  let failure: unknown = null
  for (let i = 1; failure === null && i < 200; i++) {
    await insert(`a${i}`).then(
      () => acked.push(`a${i}`),
      (error: unknown) => {
        failure = error
      },
    )
  }
  expect(failure).toMatchObject({ code: 'STORE_FAILED', status: 503 })

  const ids = async (): Promise<string[]> =>
    (await store.read((tx) => tx.sandboxes({}))).items.map((r) => r.id).toSorted()
  expect(await ids()).toEqual(acked.toSorted())
  expect(await store.read((tx) => tx.lastEventSeq())).toBe(acked.length)
  await expect(insert('still-full')).rejects.toMatchObject({ code: 'STORE_FAILED' })
  store.assertFence()

  rmSync(ballast)
  await insert('after')
  acked.push('after')
  expect(await ids()).toEqual(acked.toSorted())
  await store.close()
  const again = await openSqliteStore(options)
  made.later(() => again.close())
  const page = await again.read((tx) => tx.sandboxes({}))
  expect(page.items.map((r) => r.id).toSorted()).toEqual(acked.toSorted())
})
