import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { DOCKER_SOCKET } from '../../support/docker-subject.ts'
import { WORKLOAD } from '../model.ts'
import { assertData, engineId, leaveNothing, make, putData, reach } from '../stage.ts'
import { openRig } from '../world.ts'
import { readJournal } from './journal.ts'

const DISK_BYTES = 12 * 1024 * 1024
/** Requests until the last page of the log is used up, at most. */
const MAX_REQUESTS = 200
const OPEN_LIMIT_MS = 30_000

interface Refused {
  readonly code: string
  readonly message: string
}

/** Takes all that is left of the file system. */
function fill(file: string): void {
  const fd = openSync(file, 'w')
  try {
    for (let size = 64 * 1024; size >= 512; size /= 2)
      try {
        for (;;) writeSync(fd, Buffer.alloc(size))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
      }
  } finally {
    closeSync(fd)
  }
}

/**
 * The state directory's disk is full, in the middle of a step: requests that would have to be recorded are refused and
 * leave nothing, reads go on, and with space again all goes on in the same process. What the server logs goes to the
 * same full disk.
 */
export async function stateDiskFull(engine: 'docker' | 'local', ms: number): Promise<string> {
  const mount = mkdtempSync(join(tmpdir(), 'hff-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_BYTES}`, 'holdfast-test', mount])
  try {
    const stateDir = join(mount, 'state')
    mkdirSync(stateDir)
    const rig = await openRig(engine, DOCKER_SOCKET, { stateDir })
    const ballast = join(mount, 'ballast')
    const { server, world } = rig
    try {
      await server.start()
      const pid = server.pid()
      const running = await make(rig, 'running')
      const sum = await putData(server, running.id)
      const life = await world.life(engineId(running))
      const slow = await make(rig, 'slow', {
        entrypoint: ['sh', '-c', `trap '' TERM; while :; do sleep 0.2; done`],
        stopGraceSeconds: 3,
      })
      const journal = readJournal(stateDir)
      try {
        await server.client.sandboxes.stop(slow.id)
        await journal.whenOpen('stop-instance', OPEN_LIMIT_MS)
      } finally {
        journal.close()
      }
      fill(ballast)

      const body = (n: number): object => ({
        name: `full-${n}`,
        image: { uri: world.image },
        entrypoint: [...WORKLOAD],
        stopGraceSeconds: 2,
        metadata: { filler: 'x'.repeat(60) },
      })
      const acknowledged: string[] = []
      const idempotencyKey = randomUUID()
      let refused: Refused | null = null
      let n = 0
      for (; n < MAX_REQUESTS && refused === null; n++) {
        const answer = await server.call<{ id: string } & Refused>('POST', '/sandboxes', {
          body: body(n),
          idempotencyKey: `${idempotencyKey}-${n}`,
        })
        if (answer.status === 202) acknowledged.push(answer.body.id)
        else {
          assert.equal(answer.status, 503, JSON.stringify(answer.body))
          refused = answer.body
        }
      }
      n--
      assert.ok(refused, `${MAX_REQUESTS} creates were taken on a full disk`)
      assert.equal(refused.code, 'STORE_FAILED')
      assert.match(refused.message, /full.*not recorded; nothing was changed/)

      const names = async (): Promise<string[]> =>
        (await server.client.sandboxes.list()).map((s) => s.id).toSorted()
      const expected = [running.id, slow.id, ...acknowledged].toSorted()
      for (const end = performance.now() + ms; performance.now() < end; await delay(1_000)) {
        assert.deepEqual(await names(), expected, 'reads go on, and show what was acknowledged')
        assert.equal((await server.client.sandboxes.get(running.id)).desired.state, 'running')
      }
      assert.deepEqual(await world.life(engineId(running)), life, 'what runs goes on')
      await assertData(server, running.id, sum)

      rmSync(ballast)
      // Only now: an end that nobody has recorded yet is recorded by the local engine's list, which needs room.
      const { installation } = await server.client.info()
      const known = new Set(expected)
      for (const i of await world.instances(installation))
        assert.ok(known.has(i.sandbox), `${i.name} is of a create that was refused`)
      const repeated = await server.call<{ id: string }>('POST', '/sandboxes', {
        body: body(n),
        idempotencyKey: `${idempotencyKey}-${n}`,
      })
      assert.equal(repeated.status, 202, JSON.stringify(repeated.body))
      for (const id of [...acknowledged, repeated.body.id]) await reach(server, id, 'Running', 120_000)
      const stopped = await reach(server, slow.id, 'Stopped', 120_000)
      assert.deepEqual([stopped.desired.state, stopped.desired.reason], ['stopped', 'user'])
      assert.deepEqual(await world.life(engineId(running)), life, 'nothing that ran was touched')
      await assertData(server, running.id, sum)
      assert.equal(server.pid(), pid, 'the same process all the time')
      await leaveNothing(rig)
      return `${acknowledged.length} acknowledged before the refusal`
    } catch (error) {
      rmSync(ballast, { force: true })
      throw new Error(`${error instanceof Error ? error.stack : String(error)}\n${server.log()}`, {
        cause: error,
      })
    } finally {
      await rig.destroy()
    }
  } finally {
    execFileSync('umount', ['-l', mount])
    rmSync(mount, { recursive: true, force: true })
  }
}
