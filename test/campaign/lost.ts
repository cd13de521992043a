/** `node test/campaign/lost.ts [--engine docker|local]`: instances removed behind the server's back, beside foreign objects. */
import assert from 'node:assert/strict'
import type { Sandbox } from '@holdfast/client'
import { labelsOf, plantForeign } from './foreign.ts'
import {
  assertData,
  engineFlag,
  engineId,
  gone,
  leaveNothing,
  make,
  perform,
  putData,
  reach,
  read,
  startsOf,
  workspaceUid,
} from './stage.ts'
import { until } from './until.ts'
import { openRig, type Rig } from './world.ts'

const RECOVER_LIMIT_MS = 60_000

/** `docker rm -f`: Lost, explained, through a crash of the server, and recovered on the same volume. */
export async function lostAndRecovered(rig: Rig): Promise<void> {
  const { server, world } = rig
  const made = await make(rig, 'lost')
  const sum = await putData(server, made.id)
  await world.remove(engineId(made))
  const lost = await reach(server, made.id, 'Lost')
  assert.equal(lost.desired.state, 'running', 'what is wanted stays wanted')

  const why = await server.client.sandboxes.explain(made.id)
  assert.deepEqual(
    [why.observed.known, why.observed.instance ?? null],
    [true, null],
    'explain says that it was looked for and is absent',
  )
  assert.ok(
    why.survives.some((v) => v.uid === workspaceUid(made)),
    `explain names the volume that survives: ${JSON.stringify(why.survives)}`,
  )
  assert.ok(
    why.suggestions.some((s) => s.includes('recover')),
    `explain names the way on: ${why.suggestions.join('; ')}`,
  )

  await server.kill()
  await server.start()
  assert.equal(
    (await reach(server, made.id, 'Lost')).instance?.number ?? 1,
    1,
    'a restart of the server replaces nothing by itself',
  )

  await server.client.sandboxes.recover(made.id)
  const again = await reach(server, made.id, 'Running')
  assert.equal(again.instance?.number, 2)
  assert.notEqual(engineId(again), engineId(made))
  assert.equal(workspaceUid(again), workspaceUid(made), 'the same volume')
  await assertData(server, made.id, sum)
  await leaveNothing(rig)
}

/** With restart policy `always` it comes back by itself, also when the server was down at the time. */
export async function recoveredByPolicy(rig: Rig): Promise<void> {
  const { server, world } = rig
  const made = await make(rig, 'always', { restartPolicy: 'always' })
  const sum = await putData(server, made.id)
  await world.remove(engineId(made))
  const second = await nextInstance(rig, made.id, 2)
  await assertData(server, made.id, sum)

  await server.kill()
  await world.remove(engineId(second))
  await server.start()
  const third = await nextInstance(rig, made.id, 3)
  assert.equal(workspaceUid(third), workspaceUid(made), 'the same volume')
  await assertData(server, made.id, sum)
  assert.equal(await startsOf(server, made.id), 3, 'started once per instance')
  await leaveNothing(rig)
}

async function nextInstance({ server }: Rig, id: string, number: number): Promise<Sandbox> {
  return until(
    `${id} runs as instance ${number}`,
    RECOVER_LIMIT_MS,
    async () => {
      const s = await read(server, id)
      return s.status.state === 'Running' && s.instance?.number === number ? s : null
    },
    async () => JSON.stringify(await server.client.sandboxes.explain(id)),
  )
}

/**
 * Containers and volumes of others, some with our very labels copied onto them, through a loss, a recovery, restarts
 * of the server and a delete: byte for byte what they were. Docker only.
 */
export async function foreignUntouched(rig: Rig): Promise<void> {
  const { server, world } = rig
  const made = await make(rig, 'beside')
  const ours = await labelsOf('containers', engineId(made))
  const volumeName = (await server.client.volumes.get(workspaceUid(made))).physicalName
  const volumeLabels = await labelsOf('volumes', volumeName)
  const planted = await plantForeign(world.image, made.id, 2, { instance: ours, volume: volumeLabels })
  const untouched = async (when: string): Promise<void> =>
    assert.deepEqual(await planted.changes(), [], `a foreign object changed: ${when}`)
  try {
    await world.remove(engineId(made))
    await reach(server, made.id, 'Lost')
    await server.client.sandboxes.recover(made.id)
    const next = await until('it is blocked, or runs under another name', RECOVER_LIMIT_MS, async () => {
      const s = await read(server, made.id)
      return s.status.state === 'Blocked' || s.status.state === 'Running' ? s : null
    })
    await untouched('a recovery whose name is taken')
    if (next.status.state === 'Blocked') {
      assert.match(next.status.message, new RegExp(`hf-${made.id}-2`), 'the status names what is in the way')
      await planted.release()
      await server.client.sandboxes.recover(made.id)
      await reach(server, made.id, 'Running')
    }
    await server.kill()
    await server.start()
    await reach(server, made.id, 'Running')
    await untouched('a restart')
    await server.client.sandboxes.remove(made.id)
    await gone(server, made.id)
    await server.stop()
    await server.start()
    await untouched('a delete and a restart')
    const audit = await server.client.audit()
    assert.ok(
      audit.findings.every((f) => f.kind === 'copied-labels'),
      JSON.stringify(audit.findings),
    )
  } finally {
    await planted.remove()
  }
  await leaveNothing(rig)
}

if (import.meta.main) {
  const rig = await openRig(engineFlag(process.argv))
  await rig.server.start()
  process.exit(
    await perform('lost', rig, [
      ['removed behind its back, explained, recovered on the same volume', lostAndRecovered],
      ['recovered by itself with restart policy always', recoveredByPolicy],
      ...(rig.world.kind === 'docker'
        ? ([['foreign objects are untouched', foreignUntouched]] as const)
        : []),
    ]),
  )
}
