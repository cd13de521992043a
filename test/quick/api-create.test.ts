import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { BOX, startServer, type TestServer } from './api-support/server.ts'

let server: TestServer
beforeEach(async () => {
  server = await startServer()
})
afterEach(() => server.close())

const create = (body: object, headers: Record<string, string> = {}) =>
  server.call('POST', '/v1/sandboxes', { ...BOX, ...body }, headers)

const issuesOf = (body: { details: { issues: { path: string; message: string }[] } }): string[] =>
  body.details.issues.map((i) => i.path)

async function rows(): Promise<{ sandboxes: number; volumes: number; events: number }> {
  return server.store.read(async (tx) => ({
    sandboxes: (await tx.sandboxes({ includeDeleted: true })).total,
    volumes: (await tx.volumes({ includeRemoved: true })).total,
    events: await tx.lastEventSeq(),
  }))
}

describe('create', () => {
  it('answers 202 with id, status and what goes with the sandbox, and tells the reconciler after the commit', async () => {
    const got = await create({
      name: 'first',
      metadata: { team: 'ml' },
      timeout: 60,
      entrypoint: ['sh', '-c', ''].slice(0, 2),
    })
    expect(got.status).toBe(202)
    expect(got.body).toMatchObject({
      name: 'first',
      status: { state: 'Pending' },
      metadata: { team: 'ml' },
      entrypoint: ['sh', '-c'],
      volumes: [{ claimName: 'workspace', mountPath: '/sandbox', retention: 'delete' }],
    })
    expect(Date.parse(got.body.expiresAt) - Date.parse(got.body.createdAt)).toBe(60_000)
    const own = got.body.volumes[0].uid as string
    expect(server.kicks).toEqual([`volume/${own}`, `sandbox/${got.body.id}`])
    expect(got.headers['location']).toBe(`/v1/sandboxes/${got.body.id}`)
    expect(server.world.calls.size).toBe(0)
    const record = await server.store.read((tx) => tx.sandbox(got.body.id))
    expect(record).toMatchObject({
      desired: 'running',
      desiredReason: 'create',
      generation: 1,
      observedGeneration: 0,
    })
    const volume = await server.store.read((tx) => tx.volume(got.body.volumes[0].uid))
    expect(volume).toMatchObject({ kind: 'workspace', state: 'planned', seed: 'pending', owner: got.body.id })
    expect(volume?.notEnforced).toHaveLength(1)
    expect(await rows()).toEqual({ sandboxes: 1, volumes: 1, events: 1 })
  })

  it('is served without /v1 as well, and reads back in full', async () => {
    const made = await server.call('POST', '/sandboxes', {
      ...BOX,
      env: { A: 'b' },
      resourceLimits: { cpu: '500m', memory: '1Gi', pids: '64' },
      restartPolicy: 'on-failure:3',
      stopGraceSeconds: 3,
      workingDir: '/tmp',
      user: '1000:1000',
    })
    const got = await server.call('GET', `/v1/sandboxes/${made.body.id}`)
    expect(got.body).toMatchObject({
      id: made.body.id,
      image: { uri: 'box' },
      env: { A: 'b' },
      resourceLimits: { cpu: '500m', memory: '1Gi', pids: '64' },
      restartPolicy: 'on-failure:3',
      desired: { state: 'running', reason: 'create' },
      generation: 1,
      observedGeneration: 0,
      instance: null,
      expiresAt: null,
      stopGraceSeconds: 3,
      workingDir: '/tmp',
      user: '1000:1000',
      volumes: [{ name: 'workspace', kind: 'workspace', mountPath: '/sandbox' }],
    })
  })

  it.each([
    ['a mount at /sandbox', { volumes: [{ name: 'd', mountPath: '/sandbox', pvc: { claimName: 'd' } }] }],
    ['a mount above it', { volumes: [{ name: 'd', mountPath: '/sandbox/', host: { path: '/srv/data/x' } }] }],
    ['workspace: false', { workspace: false }],
    ['the extension', { extensions: { 'holdfast.workspace': 'false' } }],
  ])('makes no workspace with %s', async (_what, body) => {
    const got = await create(body)
    expect(got.status).toBe(202)
    const volumes = await server.store.read((tx) => tx.volumes({}))
    expect(volumes.items.filter((v) => v.kind === 'workspace')).toEqual([])
  })

  it('keeps the workspace beside a mount beneath it', async () => {
    const got = await create({
      volumes: [{ name: 'd', mountPath: '/sandbox/data', pvc: { claimName: 'd' } }],
    })
    expect(got.body.volumes.map((v: { mountPath: string }) => v.mountPath)).toEqual([
      '/sandbox',
      '/sandbox/data',
    ])
  })

  it('reads name and restart policy from extensions, and refuses a contradiction', async () => {
    const got = await create({ extensions: { 'holdfast.name': 'ext', 'holdfast.restartPolicy': 'always' } })
    expect(got.body.name).toBe('ext')
    expect((await server.call('GET', `/v1/sandboxes/${got.body.id}`)).body.restartPolicy).toBe('always')
    const other = await create({ name: 'a', extensions: { 'holdfast.name': 'b' } })
    expect(other.status).toBe(400)
    expect(issuesOf(other.body)).toEqual(['extensions["holdfast.name"]'])
  })

  it('refuses a name that is taken, naming the holder', async () => {
    const first = await create({ name: 'taken' })
    const got = await create({ name: 'taken' })
    expect(got.status).toBe(409)
    expect(got.body).toMatchObject({ code: 'SANDBOX::NAME_TAKEN', details: { id: first.body.id } })
  })
})

describe('bad input: 4xx with the field’s path, and nothing made', () => {
  it.each<[string, object, string[]]>([
    ['an unknown field', { colour: 'red', size: 1 }, ['colour', 'size']],
    ['a wrong type', { env: { A: 1 } }, ['env.A']],
    ['a short timeout', { timeout: 59 }, ['timeout']],
    ['a fractional timeout', { timeout: 60.5 }, ['timeout']],
    ['a bad name', { name: 'No_Label' }, ['name']],
    ['a long name', { name: 'a'.repeat(64) }, ['name']],
    ['a bad environment name', { env: { '1A': 'x' } }, ['env.1A']],
    ['a NUL in a value', { env: { A: 'x\0' } }, ['env.A']],
    ['an empty word in the entrypoint', { entrypoint: ['sh', ''] }, ['entrypoint[1]']],
    ['a bad cpu', { resourceLimits: { cpu: 'lots' } }, ['resourceLimits.cpu']],
    ['a bad memory', { resourceLimits: { memory: '5 GB' } }, ['resourceLimits.memory']],
    ['a tiny memory', { resourceLimits: { memory: '1Mi' } }, ['resourceLimits.memory']],
    ['an unknown limit', { resourceLimits: { disk: '1Gi' } }, ['resourceLimits.disk']],
    ['a bad policy', { restartPolicy: 'sometimes' }, ['restartPolicy']],
    ['a bad metadata key', { metadata: { '-x': 'y' } }, ['metadata.-x']],
    ['a bad metadata value', { metadata: { x: 'a b' } }, ['metadata.x']],
    [
      'a reserved metadata prefix',
      { metadata: { 'opensandbox.io/id': 'x' } },
      ['metadata.opensandbox.io/id'],
    ],
    ['our metadata prefix', { metadata: { 'holdfast.dev/uid': 'x' } }, ['metadata.holdfast.dev/uid']],
    ['an unknown extension', { extensions: { 'holdfast.colour': 'x' } }, ['extensions["holdfast.colour"]']],
    ['no image', { image: undefined }, ['image']],
    ['two sources', { snapshotId: 's' }, ['image']],
    ['windows', { platform: { os: 'windows', arch: 'amd64' } }, ['platform.os']],
    [
      'a pool with volumes',
      {
        image: undefined,
        extensions: { poolRef: 'p' },
        volumes: [{ name: 'd', mountPath: '/d', pvc: { claimName: 'd' } }],
      },
      ['volumes'],
    ],
    [
      'a relative mount',
      { volumes: [{ name: 'd', mountPath: 'd', pvc: { claimName: 'd' } }] },
      ['volumes[0].mountPath'],
    ],
    [
      'a mount with ..',
      { volumes: [{ name: 'd', mountPath: '/a/../b', pvc: { claimName: 'd' } }] },
      ['volumes[0].mountPath'],
    ],
    [
      'a mount of the root',
      { volumes: [{ name: 'd', mountPath: '//', pvc: { claimName: 'd' } }] },
      ['volumes[0].mountPath'],
    ],
    [
      'a mount over /proc',
      { volumes: [{ name: 'd', mountPath: '/proc/x', pvc: { claimName: 'd' } }] },
      ['volumes[0].mountPath'],
    ],
    [
      'a bad claim',
      { volumes: [{ name: 'd', mountPath: '/d', pvc: { claimName: 'Bad_Claim' } }] },
      ['volumes[0].pvc.claimName'],
    ],
    [
      'a bad size',
      { volumes: [{ name: 'd', mountPath: '/d', pvc: { claimName: 'd', storage: 'big' } }] },
      ['volumes[0].pvc.storage'],
    ],
    ['neither pvc nor host', { volumes: [{ name: 'd', mountPath: '/d' }] }, ['volumes[0]']],
    [
      'an unknown field in a claim',
      { volumes: [{ name: 'd', mountPath: '/d', pvc: { claimName: 'd', x: 1 } }] },
      ['volumes[0].pvc.x'],
    ],
    [
      'subPath with ..',
      { volumes: [{ name: 'd', mountPath: '/d', pvc: { claimName: 'd' }, subPath: 'a/../..' }] },
      ['volumes[0].subPath'],
    ],
    [
      'two mounts at one path',
      {
        volumes: [
          { name: 'a', mountPath: '/d', pvc: { claimName: 'a' } },
          { name: 'b', mountPath: '/d/', pvc: { claimName: 'b' } },
        ],
      },
      ['volumes[1].mountPath'],
    ],
    [
      'one claim with different flags',
      {
        volumes: [
          { name: 'a', mountPath: '/a', pvc: { claimName: 'c' } },
          { name: 'b', mountPath: '/b', pvc: { claimName: 'c', deleteOnSandboxTermination: true } },
        ],
      },
      ['volumes[1].pvc'],
    ],
  ])('%s', async (_what, body, paths) => {
    const got = await create(body)
    expect(got.body.code).toBe('SANDBOX::INVALID_PARAMETER')
    expect(got.status).toBe(400)
    expect(issuesOf(got.body)).toEqual(paths)
    expect(await rows()).toEqual({ sandboxes: 0, volumes: 0, events: 0 })
    expect(server.world.calls.size).toBe(0)
  })

  it.each([
    ['image.auth', { image: { uri: 'box', auth: { username: 'u', password: 'p' } } }],
    ['snapshotId', { image: undefined, snapshotId: 's' }],
    ['networkPolicy', { networkPolicy: { defaultAction: 'deny' } }],
    ['secureAccess', { secureAccess: true }],
    ['extensions.poolRef', { image: undefined, extensions: { poolRef: 'p' } }],
    ['resourceLimits.gpu', { resourceLimits: { gpu: '1' } }],
    ['idleTimeout', { idleTimeout: 60 }],
    ['platform', { platform: { os: 'linux', arch: 'amd64' } }],
    [
      'volumes[0].subPath',
      { volumes: [{ name: 'd', mountPath: '/d', pvc: { claimName: 'd' }, subPath: 'a' }] },
    ],
  ])('501 names %s', async (what, body) => {
    const got = await create(body)
    expect([got.status, got.body.code]).toEqual([501, 'NOT_IMPLEMENTED'])
    expect(got.body.message).toContain(what)
  })

  it.each(['/etc', '/srv/database', '/srv/data/../../etc', 'srv/data'])('host path %s', async (path) => {
    const got = await create({ volumes: [{ name: 'h', mountPath: '/h', host: { path } }] })
    expect([got.status, got.body.code]).toEqual([400, 'HOST_PATH::NOT_ALLOWED'])
    expect(got.body.message).toContain('volumes[0].host.path')
  })

  it('a host path beneath one that another sandbox can write', async () => {
    await create({ volumes: [{ name: 'h', mountPath: '/h', host: { path: '/srv/data/a' } }] })
    const got = await create({ volumes: [{ name: 'h', mountPath: '/h', host: { path: '/srv/data/a/b' } }] })
    expect(issuesOf(got.body)).toEqual(['volumes[0].host.path'])
    expect(
      (await create({ volumes: [{ name: 'h', mountPath: '/h', host: { path: '/srv/data/b' } }] })).status,
    ).toBe(202)
  })

  it('a directory as image outside the allowed prefixes', async () => {
    expect((await create({ image: { uri: 'dir:/etc' } })).body.code).toBe('HOST_PATH::NOT_ALLOWED')
    expect((await create({ image: { uri: 'dir:/srv/data/root' } })).status).toBe(202)
  })
})

describe('Idempotency-Key', () => {
  it('gives the first answer again and makes one sandbox', async () => {
    const first = await create({ name: 'once' }, { 'idempotency-key': 'k' })
    const again = await server.call(
      'POST',
      '/sandboxes',
      { ...BOX, name: 'once' },
      { 'idempotency-key': 'k' },
    )
    expect(again.status).toBe(202)
    expect(again.body).toEqual(first.body)
    expect(again.headers['idempotency-replayed']).toBe('true')
    expect(await rows()).toEqual({ sandboxes: 1, volumes: 1, events: 1 })
  })

  it('refuses another request under the same key, and the key where nothing is recorded', async () => {
    await create({ name: 'a' }, { 'idempotency-key': 'k' })
    const other = await create({ name: 'b' }, { 'idempotency-key': 'k' })
    expect([other.status, other.body.code]).toEqual([409, 'IDEMPOTENCY_MISMATCH'])
    expect(other.body.details.key).toBe('k')
    const get = await server.call('GET', '/v1/sandboxes', undefined, { 'idempotency-key': 'k' })
    expect([get.status, get.body.code]).toEqual([400, 'IDEMPOTENCY_UNSUPPORTED'])
  })

  it('records nothing for a request that was refused', async () => {
    expect((await create({ name: 'Bad' }, { 'idempotency-key': 'k' })).status).toBe(400)
    expect((await create({ name: 'good' }, { 'idempotency-key': 'k' })).status).toBe(202)
  })

  it('two at the same time make one', async () => {
    const [a, b] = await Promise.all([
      create({}, { 'idempotency-key': 'k' }),
      create({}, { 'idempotency-key': 'k' }),
    ])
    expect(a.body.id).toBe(b.body.id)
    expect((await rows()).sandboxes).toBe(1)
  })

  it('covers wishes too', async () => {
    const { body } = await create({})
    const path = `/v1/sandboxes/${body.id}/restart`
    for (let i = 0; i < 3; i++)
      expect((await server.call('POST', path, undefined, { 'idempotency-key': 'r' })).status).toBe(202)
    expect((await server.store.read((tx) => tx.sandbox(body.id)))?.restartSeq).toBe(1)
  })
})
