/** `node test/campaign/lost.ts [--engine docker|local]`: instances removed behind the server's back, beside foreign objects. */
import assert from 'node:assert/strict'
import type { Sandbox } from '@holdfast/client'
import { rawDocker, rawJson } from '../support/docker-http.ts'
import { DOCKER_SOCKET } from '../support/docker-subject.ts'
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

interface Foreign {
  /** What the engine tells of it, and for a volume its content. */
  readonly snapshot: () => Promise<string>
  readonly remove: () => Promise<void>
}

const docker = (method: string, path: string, body?: object): Promise<unknown> =>
  rawJson(DOCKER_SOCKET, method, path, body)

async function foreignContainer(
  image: string,
  name: string,
  labels: Readonly<Record<string, string>>,
  volume?: string,
): Promise<Foreign> {
  const HostConfig = volume === undefined ? {} : { Binds: [`${volume}:/data:nocopy`] }
  const body = { Image: image, Cmd: ['sleep', '100000'], Labels: labels, HostConfig }
  const made = (await docker('POST', `/containers/create?name=${name}`, body)) as { Id: string }
  await docker('POST', `/containers/${made.Id}/start`)
  return {
    snapshot: async () => JSON.stringify(await docker('GET', `/containers/${made.Id}/json`)),
    remove: async () => void (await rawDocker(DOCKER_SOCKET, 'DELETE', `/containers/${made.Id}?force=true`)),
  }
}

/** A volume with a file in it, held by nobody. */
async function foreignVolume(
  image: string,
  name: string,
  labels: Readonly<Record<string, string>>,
): Promise<Foreign> {
  await docker('POST', '/volumes/create', { Name: name, Labels: labels })
  const holder = async (): Promise<string> => {
    const body = { Image: image, Cmd: ['true'], HostConfig: { Binds: [`${name}:/data:nocopy`] } }
    return ((await docker('POST', '/containers/create', body)) as { Id: string }).Id
  }
  const content = async (): Promise<string> => {
    const id = await holder()
    try {
      const { status, text } = await rawDocker(DOCKER_SOCKET, 'GET', `/containers/${id}/archive?path=/data`)
      return `${status} ${text}`
    } finally {
      await rawDocker(DOCKER_SOCKET, 'DELETE', `/containers/${id}?force=true`)
    }
  }
  return {
    snapshot: async () => `${JSON.stringify(await docker('GET', `/volumes/${name}`))} ${await content()}`,
    remove: async () => void (await rawDocker(DOCKER_SOCKET, 'DELETE', `/volumes/${name}`)),
  }
}

const labelsOf = async (id: string): Promise<Record<string, string>> =>
  ((await docker('GET', `/containers/${id}/json`)) as { Config: { Labels: Record<string, string> } }).Config
    .Labels

/**
 * Containers and volumes of others, some with our very labels copied onto them, through a loss, a recovery, restarts
 * of the server and a delete: byte for byte what they were. Docker only.
 */
export async function foreignUntouched(rig: Rig): Promise<void> {
  const { server, world } = rig
  const made = await make(rig, 'beside')
  const mark = made.id
  const ours = await labelsOf(engineId(made))
  const volumeName = (await server.client.volumes.get(workspaceUid(made))).physicalName
  const volumeLabels = ((await docker('GET', `/volumes/${volumeName}`)) as { Labels: Record<string, string> })
    .Labels
  const foreign: Foreign[] = []
  try {
    foreign.push(await foreignVolume(world.image, `plain-${mark}`, {}))
    foreign.push(await foreignVolume(world.image, `copied-${mark}`, volumeLabels))
    foreign.push(await foreignVolume(world.image, `workspace-${mark}`, {}))
    foreign.push(await foreignContainer(world.image, `plain-${mark}`, {}, `plain-${mark}`))
    foreign.push(await foreignContainer(world.image, `copied-${mark}`, ours))
    foreign.push(
      await foreignContainer(world.image, `other-${mark}`, {
        ...ours,
        'holdfast.dev/installation': 'aaaaaaaaaaaaaaaa',
        'holdfast.dev/name': `other-${mark}`,
      }),
    )
    // Where our second instance would be.
    const squatter = await foreignContainer(world.image, `hf-${mark}-2`, {})
    foreign.push(squatter)
    const before = await Promise.all(foreign.map((f) => f.snapshot()))
    const untouched = async (when: string): Promise<void> => {
      for (const [i, f] of foreign.entries())
        assert.equal(await f.snapshot(), before[i], `a foreign object changed: ${when}`)
    }

    await world.remove(engineId(made))
    await reach(server, made.id, 'Lost')
    await server.client.sandboxes.recover(made.id)
    const next = await until('it is blocked, or runs under another name', RECOVER_LIMIT_MS, async () => {
      const s = await read(server, made.id)
      return s.status.state === 'Blocked' || s.status.state === 'Running' ? s : null
    })
    await untouched('a recovery whose name is taken')
    if (next.status.state === 'Blocked') {
      assert.match(next.status.message, new RegExp(`hf-${mark}-2`), 'the status names what is in the way')
      foreign.pop()
      await squatter.remove()
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
    for (const f of foreign.toReversed()) await f.remove()
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
