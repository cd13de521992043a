import { openSqliteStore } from '../../../src/store/sqlite/index.ts'
import { realClock, realIds, sandboxRecord } from './fixtures.ts'

/**
 * A process to be killed. `hold` opens the state directory and waits; `write` acknowledges each row on standard output
 * once its durable commit resolved, with an event in the same transaction, and goes on until it is killed.
 */
const [mode, dir = ''] = process.argv.slice(2)

const store = await openSqliteStore({ dir, clock: realClock, ids: realIds })
process.stdout.write(`ready ${store.epoch}\n`)
if (mode === 'write') {
  for (let i = 0; ; i++) {
    const id = realIds.next()
    await store.write(true, async (tx) => {
      await tx.insertSandbox(sandboxRecord({ id, createdAt: i }))
      await tx.appendEvent({ subject: 'sandbox', id, type: 'Normal', reason: 'Made', message: 'x' }, i)
    })
    process.stdout.write(`ack ${id}\n`)
    if (i % 16 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
}
// A limit of its own, should the test that started it be gone.
setTimeout(() => process.exit(1), 60_000)
