import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { CreateSandbox, EngineInfo, Sandbox } from '@holdfast/client'
import { DOCKER_SOCKET } from '../support/docker-subject.ts'
import { rawDocker } from '../support/docker-http.ts'
import type { Answer, TestServer } from '../support/server.ts'
import { type Registry, startRegistry } from './failpoints-registry.ts'
import { createHistory, type History, sha256, WORKLOAD } from './model.ts'
import { type Sampler, startSampler } from './sampler.ts'
import { assertData, engineId, gone, make, putData, reach, run } from './stage.ts'
import { until } from './until.ts'
import { type Life, openRig, type Rig } from './world.ts'

/** Until the journal and the engine are as they should be; a create that was lost is waited for, ms. */
const SETTLE_LIMIT_MS = 90_000
/** A volume that outlives every case, with what its first user wrote. */
export const CLAIM = 'kept'
const CLAIM_FILE = '/data/kept.bin'

/** One request that records a wish. */
export interface Intent {
  readonly method: 'POST' | 'PATCH' | 'DELETE'
  readonly path: string
  readonly body?: object
}

/** One server, engine and installation on which cases run one after the other. */
export interface Stage {
  readonly rig: Rig
  readonly installation: string
  readonly capabilities: EngineInfo['capabilities']
  readonly history: History
  /** Null where nothing is pulled. */
  readonly registry: Registry | null
  /** What every case adds to names. */
  readonly fresh: (word: string) => string
  /** Physical names of the volumes that belong to no case. */
  readonly standing: ReadonlySet<string>
  readonly sampler: Sampler
  readonly bystander: Bystander
  /** Checks the volume that outlives all, through a sandbox that mounts it. */
  assertKept(id: string): Promise<void>
  destroy(): Promise<void>
}

interface Bystander {
  readonly id: string
  readonly life: Life
  readonly sum: string
}

export const KEPT_MOUNT: NonNullable<CreateSandbox['volumes']> = [
  { name: 'data', mountPath: '/data', pvc: { claimName: CLAIM } },
]

/** The wish as a create of the usual workload. */
export function createBody(stage: Stage, name: string, over: Partial<CreateSandbox> = {}): CreateSandbox {
  return {
    name,
    image: { uri: stage.rig.world.image },
    entrypoint: [...WORKLOAD],
    stopGraceSeconds: 2,
    ...over,
  }
}

export async function openStage(kind: 'docker' | 'local', entry: string | undefined): Promise<Stage> {
  const rig = await openRig(kind, DOCKER_SOCKET, entry === undefined ? {} : { entry })
  const { server, world } = rig
  let registry: Registry | null = null
  try {
    await server.start()
    const { installation } = await server.client.info()
    const [engine] = await server.client.engines()
    assert.ok(engine, 'the server has an engine')
    if (engine.capabilities['pull'] === true) registry = await startRegistry(DOCKER_SOCKET, world.image)

    const stands = await make(rig, 'bystander')
    const life = await world.life(engineId(stands))
    assert.ok(life, 'the engine knows the bystander')
    const bystander = { id: stands.id, life, sum: await putData(server, stands.id) }
    const first = await make(rig, 'first-user', { volumes: KEPT_MOUNT })
    const content = `${first.id}\n`.repeat(2_000)
    await run(server, first.id, `cat > ${CLAIM_FILE}`, content)
    await server.client.sandboxes.remove(first.id)
    await gone(server, first.id)
    const standing = new Set<string>()
    await until('the first user is gone with its workspace', SETTLE_LIMIT_MS, async () => {
      standing.clear()
      for (const v of await server.client.volumes.list()) standing.add(v.physicalName)
      return standing.size === 2
    })

    const history = createHistory()
    const sampler = startSampler(world, installation, history)
    let count = 0
    return {
      rig,
      installation,
      capabilities: engine.capabilities,
      history,
      registry,
      fresh: (word) => `${word.replaceAll(/[^a-z0-9]+/g, '-')}-${++count}`,
      standing,
      sampler,
      bystander,
      async assertKept(id) {
        const found = await run(server, id, `sha256sum < ${CLAIM_FILE}`)
        assert.ok(found.startsWith(sha256(content)), `the kept volume reads as ${found.trim()}`)
      },
      async destroy() {
        await sampler.stop()
        await registry?.close()
        await rig.destroy()
      },
    }
  } catch (error) {
    await registry?.close()
    await rig.destroy()
    throw error
  }
}

/** A wish with one key for all of its repetitions. */
export interface Ask {
  /** Null when the server died before it answered. */
  send(server: TestServer): Promise<Answer<{ id?: string; uid?: string }> | null>
}

export function asking({ method, path, body }: Intent): Ask {
  const idempotencyKey = method === 'POST' ? randomUUID() : undefined
  return {
    send: (server) =>
      server
        .call<{ id?: string; uid?: string }>(method, path, {
          ...(body === undefined ? {} : { body }),
          ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
        })
        .catch(async (error: unknown) => {
          // Without an answer nothing is known, unless it is no death that kept it back.
          if (await server.ended(5_000)) return null
          throw error
        }),
  }
}

/** No open step, a clean audit, and on the engine the bystander and what was kept, with what else is named. */
export async function settled(stage: Stage, also: ReadonlySet<string> = new Set()): Promise<void> {
  const { rig, installation, bystander, standing } = stage
  const { server, world } = rig
  const look = async (): Promise<string[]> => {
    const audit = await server.client.audit()
    const instances = await world.instances(installation)
    const volumes = await world.volumes(installation)
    return [
      ...audit.findings.map((f) => `audit: ${f.kind} ${f.name}: ${f.detail}`),
      ...(audit.counts['openSteps'] === 0 ? [] : [`${audit.counts['openSteps']} open steps`]),
      ...instances
        .filter((i) => i.sandbox !== bystander.id && !also.has(i.sandbox))
        .map((i) => `the instance ${i.name} is left`),
      ...(also.size > 0 ? [] : volumes.filter((v) => !standing.has(v)).map((v) => `the volume ${v} is left`)),
      ...[...standing].filter((v) => !volumes.includes(v)).map((v) => `the volume ${v} is gone`),
    ]
  }
  await until(
    'everything is settled',
    SETTLE_LIMIT_MS,
    async () => (await look()).length === 0,
    async () => (await look()).join('; '),
  )
}

/** Same instance, same start, same data: nothing happened to it. */
export async function assertUntouched(stage: Stage): Promise<void> {
  const { world } = stage.rig
  const { life } = stage.bystander
  assert.deepEqual(
    await world.life(life.id),
    life,
    'the bystander goes on in the same life of the same instance',
  )
}

export async function hearBystander(stage: Stage): Promise<void> {
  const { server } = stage.rig
  await assertUntouched(stage)
  const s: Sandbox = await reach(server, stage.bystander.id, 'Running')
  assert.equal(engineId(s), stage.bystander.life.id)
  await assertData(server, s.id, stage.bystander.sum)
}

/** Removes an image of a case from the engine. */
export async function dropImage(reference: string): Promise<void> {
  const { status, text } = await rawDocker(DOCKER_SOCKET, 'DELETE', `/images/${reference}?force=true`)
  assert.ok(status < 300 || status === 404, `removing ${reference}: ${status} ${text}`)
}
