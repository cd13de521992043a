import assert from 'node:assert/strict'
import type { CreateSandbox, Sandbox } from '@holdfast/client'
import type { StepKind } from '../../src/model/records.ts'
import { rawJson } from '../support/docker-http.ts'
import { DOCKER_SOCKET } from '../support/docker-subject.ts'
import { createBody, dropImage, type Intent, KEPT_MOUNT, type Stage } from './failpoints-stage.ts'
import { assertData, engineId, gone, make, putData, reach, startsOf, workspaceUid } from './stage.ts'
import { until } from './until.ts'

const LIMIT_MS = 60_000

/** What one case was set up to do, and how it is known to have come right. */
export interface Setting {
  /** The one request that leads to the step; null where the server's start does. */
  readonly request: Intent | null
  /** Done while no server runs, right before the one that is to die. */
  readonly whileDown?: () => Promise<void>
  /** After the last start: the wish is reached, in the right instance, with its data. `made` is the answer's id. */
  readonly reached: (made: string | null) => Promise<void>
  /** The sandbox that there is now, if any; it is deleted at the end of the case. */
  readonly sandbox: (made: string | null) => string | null
  /** What else the case leaves, after its sandbox is gone. */
  readonly clear?: (made: string | null) => Promise<void>
}

export interface Scenario {
  readonly name: string
  /** Where only one engine can be brought there from outside. */
  readonly only?: 'docker'
  /** With a server that runs without a failpoint. */
  readonly set: (stage: Stage) => Promise<Setting>
}

/** A running sandbox with data, and the life of its instance. */
interface Subject {
  readonly id: string
  readonly sum: string
  readonly made: Sandbox
}

async function subject(stage: Stage, word: string, over: Partial<CreateSandbox> = {}): Promise<Subject> {
  const made = await make(stage.rig, stage.fresh(word), over)
  return { id: made.id, sum: await putData(stage.rig.server, made.id), made }
}

interface End {
  readonly state: 'Running' | 'Stopped' | 'Paused'
  /** `life`: not even started again. `same`: the same instance. `next`: the second one. */
  readonly instance: 'life' | 'same' | 'next'
  /** How often its process was started in all, the check's own start apart. */
  readonly starts: number
}

/** The sandbox is as it was wished, and so are its instance and its data; a stopped one is started to be read. */
async function assertEnd(stage: Stage, { id, sum, made }: Subject, end: End): Promise<void> {
  const { server, world } = stage.rig
  const s = await reach(server, id, end.state)
  assert.equal(s.instance?.number, end.instance === 'next' ? 2 : 1)
  if (end.instance !== 'next') assert.equal(engineId(s), engineId(made), 'the same instance')
  if (end.instance === 'life') assert.equal(s.instance?.startedAt, made.instance?.startedAt, 'the same start')
  assert.equal(workspaceUid(s), workspaceUid(made), 'the same volume')
  const seen = (await world.instances(stage.installation)).filter((i) => i.sandbox === id)
  assert.deepEqual(
    seen.map((i) => [i.id, i.running]),
    [[engineId(s), end.state !== 'Stopped']],
    'what the engine has of it',
  )
  if (end.state === 'Paused') await server.client.sandboxes.resume(id)
  if (end.state === 'Stopped') await server.client.sandboxes.start(id)
  const up = await reach(server, id, 'Running')
  assert.equal(engineId(up), engineId(s))
  assert.equal(await startsOf(server, id), end.starts + (end.state === 'Stopped' ? 1 : 0), 'starts in all')
  await assertData(server, id, sum)
}

/** A wish about a sandbox that runs, or was brought to where the wish makes sense. */
function wish(
  name: string,
  intent: Pick<Intent, 'method' | 'body'> & { readonly action?: string },
  end: End,
  bring?: (stage: Stage, s: Subject) => Promise<void>,
): Scenario {
  return {
    name,
    async set(stage) {
      const s = await subject(stage, name)
      await bring?.(stage, s)
      const { action = '', ...rest } = intent
      return {
        request: { ...rest, path: `/sandboxes/${s.id}${action}` },
        reached: () => assertEnd(stage, s, end),
        sandbox: () => s.id,
      }
    },
  }
}

const bringTo =
  (action: 'pause' | 'stop', state: 'Paused' | 'Stopped') =>
  async ({ rig: { server } }: Stage, { id }: Subject): Promise<void> => {
    await server.client.sandboxes[action](id)
    await reach(server, id, state)
  }

/** Exactly one sandbox came of the create, on the volume that was there before. */
async function assertCreated(stage: Stage, name: string, made: string | null): Promise<void> {
  const { server, world } = stage.rig
  assert.ok(made, 'the create was acknowledged')
  const s = await reach(server, made, 'Running')
  assert.equal(s.instance?.number, 1)
  const named = (await server.client.sandboxes.list()).filter((o) => o.name === name)
  assert.deepEqual(
    named.map((o) => o.id),
    [made],
    'one sandbox of one create',
  )
  const seen = (await world.instances(stage.installation)).filter((i) => i.sandbox === made)
  assert.deepEqual(
    seen.map((i) => [i.id, i.running]),
    [[engineId(s), true]],
    'what the engine has of it',
  )
  assert.equal(await startsOf(server, made), 1, 'starts in all')
  await stage.assertKept(made)
  // Its new volume is there to stay, too.
  await assertData(server, made, await putData(server, made))
}

const CREATE: Scenario = {
  name: 'create',
  async set(stage) {
    const name = stage.fresh('create')
    return {
      request: {
        method: 'POST',
        path: '/sandboxes',
        body: createBody(stage, name, { volumes: KEPT_MOUNT }),
      },
      reached: (made) => assertCreated(stage, name, made),
      sandbox: (made) => made,
    }
  },
}

const CREATE_FROM_REGISTRY: Scenario = {
  name: 'create from a registry',
  async set(stage) {
    assert.ok(stage.registry, 'an engine that pulls has a registry to pull from')
    const name = stage.fresh('pull')
    const uri = stage.registry.offer(name)
    const servedBefore = stage.registry.served
    return {
      request: {
        method: 'POST',
        path: '/sandboxes',
        body: createBody(stage, name, { volumes: KEPT_MOUNT, image: { uri } }),
      },
      async reached(made) {
        await assertCreated(stage, name, made)
        assert.ok((stage.registry?.served ?? 0) > servedBefore, 'it was pulled')
      },
      sandbox: (made) => made,
      clear: () => dropImage(uri),
    }
  },
}

const UPDATE: Scenario = wish(
  'update',
  { method: 'PATCH', body: { env: { CHANGED: 'yes' } } },
  { state: 'Running', instance: 'next', starts: 2 },
)
const RESTART: Scenario = wish(
  'restart',
  { method: 'POST', action: '/restart' },
  { state: 'Running', instance: 'same', starts: 2 },
)

const RECOVER: Scenario = wish(
  'recover',
  { method: 'POST', action: '/recover' },
  { state: 'Running', instance: 'next', starts: 2 },
  async ({ rig: { server, world } }, { id, made }) => {
    // While the server is down, so that its first look finds the loss.
    await server.kill()
    await world.remove(engineId(made))
    await server.start()
    await reach(server, id, 'Lost')
  },
)

/** Its volumes go with it, and the one that outlives it keeps its data for the next. */
const DELETE: Scenario = {
  name: 'delete',
  async set(stage) {
    const { server } = stage.rig
    const s = await subject(stage, 'delete', { volumes: KEPT_MOUNT })
    const volume = workspaceUid(s.made)
    return {
      request: { method: 'DELETE', path: `/sandboxes/${s.id}` },
      async reached() {
        await gone(server, s.id)
        await until('its workspace is gone', LIMIT_MS, async () =>
          (await server.client.volumes.list()).every((v) => v.uid !== volume),
        )
        const next = await make(stage.rig, stage.fresh('next'), { volumes: KEPT_MOUNT })
        await stage.assertKept(next.id)
        await server.client.sandboxes.remove(next.id)
        await gone(server, next.id)
      },
      sandbox: () => null,
    }
  },
}

const VOLUME_CREATE: Scenario = {
  name: 'volume create',
  async set(stage) {
    const { server } = stage.rig
    const claimName = stage.fresh('volume')
    return {
      request: { method: 'POST', path: '/volumes', body: { claimName } },
      async reached(made) {
        const s = await make(stage.rig, stage.fresh('user'), {
          volumes: [{ name: 'data', mountPath: '/data', pvc: { claimName, createIfNotExists: false } }],
        })
        const mounted = s.volumes.find((v) => v.claimName === claimName)
        assert.equal(mounted?.uid, made, 'the volume of the create, and no other')
        await server.client.sandboxes.remove(s.id)
        await gone(server, s.id)
      },
      sandbox: () => null,
      async clear(made) {
        if (made !== null) await server.client.volumes.remove(made)
      },
    }
  },
}

const PURGE: Scenario = {
  name: 'purge',
  async set(stage) {
    const { server, world } = stage.rig
    const claimName = stage.fresh('purge')
    const s = await make(stage.rig, stage.fresh('owner'), {
      volumes: [{ name: 'data', mountPath: '/data', pvc: { claimName } }],
    })
    const volume = await server.client.volumes.get(claimName)
    await server.client.sandboxes.remove(s.id)
    await gone(server, s.id)
    await until('only what is kept is left', LIMIT_MS, async () => {
      const left = await world.volumes(stage.installation)
      return left.length === stage.standing.size + 1 && left.includes(volume.physicalName)
    })
    return {
      request: { method: 'DELETE', path: `/volumes/${volume.uid}` },
      reached: () =>
        until('the purged volume is gone', LIMIT_MS, async () =>
          (await world.volumes(stage.installation)).every((name) => name !== volume.physicalName),
        ).then(() => undefined),
      sandbox: () => null,
    }
  },
}

const docker = <T>(method: string, path: string, body?: object): Promise<T> =>
  rawJson<T>(DOCKER_SOCKET, method, path, body)

/** What was deleted comes back behind our back, as from a create that landed late: the full list removes it. */
const REMNANT: Scenario = {
  name: 'remnant',
  only: 'docker',
  async set(stage) {
    const { server, world } = stage.rig
    const s = await subject(stage, 'remnant')
    const volume = (await server.client.volumes.get(workspaceUid(s.made))).physicalName
    const [seen] = (await world.instances(stage.installation)).filter((i) => i.sandbox === s.id)
    assert.ok(seen, 'the engine has its instance')
    const container = await docker<{ Config: { Labels: object } }>('GET', `/containers/${seen.id}/json`)
    const { Labels } = await docker<{ Labels: object }>('GET', `/volumes/${volume}`)
    await server.client.sandboxes.remove(s.id)
    await gone(server, s.id)
    await until('its volume is gone', LIMIT_MS, async () =>
      (await world.volumes(stage.installation)).every((name) => name !== volume),
    )
    return {
      request: null,
      async whileDown() {
        await docker('POST', '/volumes/create', { Name: volume, Labels })
        const body = { Image: world.image, Labels: container.Config.Labels, Cmd: ['sleep', '1000'] }
        await docker('POST', `/containers/create?name=${seen.name}`, body)
      },
      reached: () =>
        until('what came back is gone', LIMIT_MS, async () => {
          const instances = await world.instances(stage.installation)
          const volumes = await world.volumes(stage.installation)
          return instances.every((i) => i.name !== seen.name) && volumes.every((name) => name !== volume)
        }).then(() => undefined),
      sandbox: () => null,
    }
  },
}

/**
 * What leads to each kind of step. A kind that is not here does not compile; a scenario that does not lead there fails
 * the run, since its server does not die.
 */
export const SCENARIOS: { readonly [K in StepKind]: readonly [Scenario, ...Scenario[]] } = {
  'pull-image': [CREATE_FROM_REGISTRY],
  'create-volume': [CREATE, VOLUME_CREATE],
  'remove-volume': [DELETE, PURGE, REMNANT],
  'create-instance': [CREATE, UPDATE, RECOVER],
  'start-instance': [
    RESTART,
    CREATE,
    wish(
      'start',
      { method: 'POST', action: '/start' },
      { state: 'Running', instance: 'same', starts: 2 },
      bringTo('stop', 'Stopped'),
    ),
  ],
  'stop-instance': [
    wish('stop', { method: 'POST', action: '/stop' }, { state: 'Stopped', instance: 'same', starts: 1 }),
    RESTART,
    UPDATE,
    DELETE,
  ],
  'pause-instance': [
    wish('pause', { method: 'POST', action: '/pause' }, { state: 'Paused', instance: 'life', starts: 1 }),
  ],
  'unpause-instance': [
    wish(
      'resume',
      { method: 'POST', action: '/resume' },
      { state: 'Running', instance: 'life', starts: 1 },
      bringTo('pause', 'Paused'),
    ),
    wish(
      'stop of a paused one',
      { method: 'POST', action: '/stop' },
      { state: 'Stopped', instance: 'same', starts: 1 },
      bringTo('pause', 'Paused'),
    ),
  ],
  'remove-instance': [DELETE, UPDATE, REMNANT],
}

/** Steps that an engine takes only if it says so. */
export const NEEDS: { readonly [K in StepKind]?: string } = {
  'pull-image': 'pull',
  'pause-instance': 'pause',
  'unpause-instance': 'pause',
}
