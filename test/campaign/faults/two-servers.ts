import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DOCKER_SOCKET } from '../../support/docker-subject.ts'
import { createTestServer, type TestServer } from '../../support/server.ts'
import { assertData, engineId, gone, leaveNothing, make, putData, reach, read } from '../stage.ts'
import { openRig, type Rig, type World } from '../world.ts'
import { readJournal } from './journal.ts'

const END_LIMIT_MS = 30_000
const GRACE_S = 4
/** The exit code of a conflict. */
const CONFLICT = 4

type Kind = World['kind']

/** A second server, for as long as the body runs; its state directory is the caller's. */
async function withSecond<T>(
  kind: Kind,
  stateDir: string,
  body: (second: TestServer) => Promise<T>,
): Promise<T> {
  const env = kind === 'docker' ? { DOCKER_HOST: `unix://${DOCKER_SOCKET}` } : {}
  const second = await createTestServer({ engine: kind, env, stateDir })
  try {
    return await body(second)
  } finally {
    await second.kill()
  }
}

/** It ends by itself, with the exit code of a conflict, and names who holds what it wanted. */
async function assertRefused(second: TestServer, holder: number): Promise<void> {
  await second.start({ waitReady: false })
  assert.ok(await second.ended(END_LIMIT_MS), 'the second server ends by itself')
  assert.deepEqual(second.exit(), { code: CONFLICT, signal: null }, second.log())
  assert.match(second.log(), new RegExp(`process ${holder}\\b`), 'it names the holder')
}

interface Scene {
  readonly rig: Rig
  readonly running: { readonly id: string; readonly sum: string; readonly engineId: string }
  readonly life: Awaited<ReturnType<World['life']>>
}

async function onScene<T>(kind: Kind, body: (scene: Scene) => Promise<T>): Promise<T> {
  const rig = await openRig(kind)
  const { server, world } = rig
  try {
    await server.start()
    const made = await make(rig, 'running')
    const running = { id: made.id, sum: await putData(server, made.id), engineId: engineId(made) }
    return await body({ rig, running, life: await world.life(running.engineId) })
  } catch (error) {
    throw new Error(`${error instanceof Error ? error.stack : String(error)}\n${server.log()}`, {
      cause: error,
    })
  } finally {
    if (server.running()) process.kill(server.pid(), 'SIGCONT')
    await rig.destroy()
  }
}

async function assertGoesOn({ rig: { server, world }, running, life }: Scene): Promise<void> {
  await reach(server, running.id, 'Running')
  assert.deepEqual(await world.life(running.engineId), life, 'the same life of the same instance')
  await assertData(server, running.id, running.sum)
}

/** Two servers on one state directory: the second ends and names the first, which goes on; also while it is paused. */
export async function twoServers(kind: Kind): Promise<string> {
  return onScene(kind, async (scene) => {
    const { server } = scene.rig
    const pid = server.pid()
    await withSecond(kind, server.stateDir, (second) => assertRefused(second, pid))
    await assertGoesOn(scene)
    process.kill(pid, 'SIGSTOP')
    await withSecond(kind, server.stateDir, (second) => assertRefused(second, pid))
    process.kill(pid, 'SIGCONT')
    await assertGoesOn(scene)
    // Killed, it holds nothing any more, and a second one takes over where it was.
    await server.kill()
    await withSecond(kind, server.stateDir, async (second) => {
      await second.start()
      assert.equal((await read(second, scene.running.id)).status.state, 'Running')
      await second.stop()
    })
    await server.start()
    await assertGoesOn(scene)
    await leaveNothing(scene.rig)
    return '3 meetings'
  })
}

/**
 * A server is paused in the middle of a step while its state directory is copied. As long as it lives, nobody starts
 * on the copy; once it was killed the copy takes over, and what the first had in flight is noticed. Docker only: the
 * local engine's data lies in the state directory itself.
 */
export async function copiedWhilePaused(): Promise<string> {
  const copy = mkdtempSync(join(tmpdir(), 'hft-copy-'))
  try {
    return await onScene('docker', async (scene) => {
      const { server, world } = scene.rig
      const pid = server.pid()
      const slow = await make(scene.rig, 'slow', {
        entrypoint: ['sh', '-c', `trap '' TERM; while :; do sleep 0.2; done`],
        stopGraceSeconds: GRACE_S,
      })
      const sum = await putData(server, slow.id)
      await server.client.sandboxes.stop(slow.id)
      const journal = readJournal(server.stateDir)
      try {
        await journal.whenOpen('stop-instance', END_LIMIT_MS)
        process.kill(pid, 'SIGSTOP')
      } finally {
        journal.close()
      }
      cpSync(server.stateDir, copy, { recursive: true })

      await withSecond('docker', copy, (second) => assertRefused(second, pid))
      process.kill(pid, 'SIGCONT')
      await assertGoesOn(scene)
      await reach(server, slow.id, 'Stopped')
      await server.client.sandboxes.start(slow.id)
      await reach(server, slow.id, 'Running')

      // Again, and this time the first never comes back.
      await server.client.sandboxes.stop(slow.id)
      const again = readJournal(server.stateDir)
      try {
        await again.whenOpen('stop-instance', END_LIMIT_MS)
        process.kill(pid, 'SIGSTOP')
      } finally {
        again.close()
      }
      rmSync(copy, { recursive: true })
      cpSync(server.stateDir, copy, { recursive: true })
      await server.kill()
      await withSecond('docker', copy, async (second) => {
        await second.start()
        const stopped = await reach(second, slow.id, 'Stopped')
        assert.deepEqual([stopped.desired.state, stopped.desired.reason], ['stopped', 'user'])
        await second.client.sandboxes.start(slow.id)
        await reach(second, slow.id, 'Running')
        await assertData(second, slow.id, sum)
        assert.deepEqual(await world.life(scene.running.engineId), scene.life, 'what ran was not touched')
        for (const id of [slow.id, scene.running.id]) await second.client.sandboxes.remove(id)
        for (const id of [slow.id, scene.running.id]) await gone(second, id)
        const { installation } = await second.client.info()
        await leaveNothing({ ...scene.rig, server: second })
        assert.deepEqual(await world.instances(installation), [])
        await second.stop()
      })
      return '2 pauses in the middle of a step'
    })
  } finally {
    rmSync(copy, { recursive: true, force: true })
  }
}

/**
 * While a server is paused its state directory is replaced by a copy under the same path, with a wish in it that the
 * first has not begun. Resumed, it finds that the files are not its own: it commits nothing, sends nothing and ends.
 */
export async function replacedWhilePaused(): Promise<string> {
  const aside = mkdtempSync(join(tmpdir(), 'hft-aside-'))
  try {
    return await onScene('docker', async (scene) => {
      const { server, world } = scene.rig
      const pid = server.pid()
      process.kill(pid, 'SIGSTOP')
      renameSync(server.stateDir, join(aside, 'state'))
      cpSync(join(aside, 'state'), server.stateDir, { recursive: true })
      await withSecond('docker', server.stateDir, (second) => assertRefused(second, pid))
      const wish = server.call('DELETE', `/sandboxes/${scene.running.id}`, { limitMs: END_LIMIT_MS }).then(
        (answer) => answer.status,
        // It ended before it answered.
        () => null,
      )
      process.kill(pid, 'SIGCONT')
      assert.ok(await server.ended(END_LIMIT_MS), 'the first ends by itself')
      assert.deepEqual(server.exit(), { code: CONFLICT, signal: null }, server.log())
      const status = await wish
      assert.ok(status === null || status === 503, `a server without its files answered ${status}`)
      assert.deepEqual(await world.life(scene.running.engineId), scene.life, 'it did nothing more')
      await server.start()
      await assertGoesOn(scene)
      await leaveNothing(scene.rig)
      return '1 replacement'
    })
  } finally {
    rmSync(aside, { recursive: true, force: true })
  }
}
