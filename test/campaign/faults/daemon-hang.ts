import assert from 'node:assert/strict'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { assertData, engineId, leaveNothing, make, putData, reach, read, workspaceUid } from '../stage.ts'
import { until } from '../until.ts'
import { assertBystander, assertNoTwins, openPrivateRig } from './daemon-rig.ts'

const RETURN_LIMIT_MS = 150_000
/** The most that a read may take while the engine hangs, ms: it asks the store, not the engine. */
const READ_LIMIT_MS = 5_000
/** Until the server says that it does not know: a probe's limit after the next probe, ms. */
const UNKNOWN_LIMIT_MS = 40_000
const MAY_SHOW = ['Running', 'Unknown']

/** Says that it is alive, several times a second, into its volume. */
const TICKS = ['sh', '-c', `trap 'exit 0' TERM; while :; do echo tick >> /sandbox/ticks; sleep 0.3; done`]

/**
 * The daemon is stopped by SIGSTOP, so that every call hangs, and goes on after a while. Meanwhile the API answers,
 * wishes are taken, nothing is undone, and the workloads run on.
 */
export async function daemonHangs(ms: number): Promise<string> {
  const on = await openPrivateRig(false)
  const { rig, daemon } = on
  const { server, world } = rig
  let hung = false
  try {
    const ticking = await make(rig, 'ticking', { entrypoint: TICKS })
    const life = await world.life(engineId(ticking))
    const { physicalName } = await server.client.volumes.get(workspaceUid(ticking))
    const ticks = join(daemon.dir, 'data/volumes', physicalName, '_data/ticks')
    const stopped = await make(rig, 'to-be-stopped')
    const sum = await putData(server, stopped.id)
    const deleted = await make(rig, 'to-be-deleted')

    process.kill(daemon.pid(), 'SIGSTOP')
    hung = true
    const until30 = performance.now() + ms
    const before = statSync(ticks).size
    await server.client.sandboxes.stop(stopped.id)
    await server.client.sandboxes.remove(deleted.id)
    const made = await server.client.sandboxes.create({
      name: 'made-meanwhile',
      image: { uri: world.image },
      entrypoint: TICKS,
    })
    let reads = 0
    while (performance.now() < until30) {
      const { status, body } = await server.call<{ status: { state: string } }>(
        'GET',
        `/sandboxes/${ticking.id}`,
        {
          limitMs: READ_LIMIT_MS,
        },
      )
      assert.equal(status, 200)
      assert.ok(MAY_SHOW.includes(body.status.state), `what runs shows as ${body.status.state}`)
      reads++
      await delay(500)
    }
    await until('the engine is said not to answer', UNKNOWN_LIMIT_MS, async () => {
      const [engine] = (await server.call<{ items: { ok?: boolean }[] }>('GET', '/engines')).body.items
      const why = await server.client.sandboxes.explain(ticking.id)
      return engine !== undefined && !why.engine.ok
    })
    assert.ok(statSync(ticks).size > before, 'the workload ran on while the engine hung')
    process.kill(daemon.pid(), 'SIGCONT')
    hung = false

    await reach(server, stopped.id, 'Stopped', RETURN_LIMIT_MS)
    assert.equal((await read(server, stopped.id)).desired.reason, 'user')
    await until('the deleted one is gone', RETURN_LIMIT_MS, async () => {
      const { status } = await server.call('GET', `/sandboxes/${deleted.id}`)
      return status === 404
    })
    const late = await reach(server, made.id, 'Running', RETURN_LIMIT_MS)
    assert.equal(late.instance?.number, 1, 'one instance, although its create hung')
    await reach(server, ticking.id, 'Running', RETURN_LIMIT_MS)
    assert.deepEqual(await world.life(engineId(ticking)), life, 'what ran goes on in the same life')
    await assertBystander(on, true)
    await assertNoTwins(on)
    await server.client.sandboxes.start(stopped.id)
    await reach(server, stopped.id, 'Running')
    await assertData(server, stopped.id, sum)
    await leaveNothing(rig)
    return `${Math.round(ms / 1000)} s, ${reads} reads meanwhile`
  } catch (error) {
    throw new Error(`${String(error)}\n${server.log()}`, { cause: error })
  } finally {
    if (hung) process.kill(daemon.pid(), 'SIGCONT')
    await on.destroy()
  }
}
