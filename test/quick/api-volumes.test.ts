import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { noFaults } from '../../src/engines/simulated/faults.ts'
import { EngineError } from '../../src/model/facts.ts'
import { labelsFor } from '../../src/model/labels.ts'
import type { VolumeRecord } from '../../src/model/records.ts'
import { BOX, startServer, type Answer, type TestServer } from './api-support/server.ts'

let server: TestServer
beforeEach(async () => {
  server = await startServer()
})
afterEach(() => server.close())

interface Pvc {
  claimName: string
  createIfNotExists?: boolean
  deleteOnSandboxTermination?: boolean
  storage?: string
  storageClass?: string
  accessModes?: string[]
}

const mount = (pvc: Pvc, over: object = {}): object => ({ name: 'data', mountPath: '/data', pvc, ...over })
const create = (...volumes: object[]): Promise<Answer> =>
  server.call('POST', '/v1/sandboxes', { ...BOX, workspace: false, volumes })
const byClaim = (claim: string): Promise<VolumeRecord | null> =>
  server.store.read((tx) => tx.volumeByClaim('simulated', claim))
const sandboxes = async (): Promise<number> => (await server.store.read((tx) => tx.sandboxes({}))).total

describe('claims of a create', () => {
  it('a new claim becomes a planned row whose physical name holds the uid, retained by default', async () => {
    const got = await create(mount({ claimName: 'cache', storage: '1Gi', storageClass: 'fast' }))
    const row = await byClaim('cache')
    expect(got.body.volumes).toEqual([
      { claimName: 'cache', uid: row?.uid, mountPath: '/data', retention: 'retain' },
    ])
    expect(row).toMatchObject({
      kind: 'claim',
      state: 'planned',
      physicalName: `cache-${row?.uid}`,
      managed: true,
      owner: got.body.id,
      retention: 'retain',
      seed: 'none',
      sizeBytes: 2 ** 30,
    })
    expect(row?.notEnforced).toHaveLength(2)
    expect(server.world.volumes.size).toBe(0)
  })

  it('one claim at two paths with equal flags is one volume', async () => {
    const got = await create(mount({ claimName: 'c' }), {
      ...mount({ claimName: 'c' }),
      name: 'again',
      mountPath: '/again',
      readOnly: true,
    })
    expect(got.status).toBe(202)
    expect(new Set(got.body.volumes.map((v: { uid: string }) => v.uid)).size).toBe(1)
  })

  it('createIfNotExists=false for a claim that nobody has', async () => {
    const got = await create(mount({ claimName: 'c', createIfNotExists: false }))
    expect([got.status, got.body.code]).toEqual([400, 'VOLUME::CLAIM_NOT_FOUND'])
    expect(got.body.message).toContain('"c"')
    expect(await sandboxes()).toBe(0)
    expect(await byClaim('c')).toBeNull()
  })

  it.each([true, false])(
    'a claim owned by another sandbox (createIfNotExists=%s)',
    async (createIfNotExists) => {
      const owner = await create(mount({ claimName: 'c', deleteOnSandboxTermination: true }))
      expect(owner.body.volumes[0].retention).toBe('delete')
      const got = await create(mount({ claimName: 'c', createIfNotExists }))
      expect([got.status, got.body.code]).toEqual([409, 'SANDBOX::INVALID_PARAMETER'])
      expect(got.body.message).toContain(owner.body.id)
      expect(got.body.suggestion).toContain('--shared')
      expect(await sandboxes()).toBe(1)
    },
  )

  it('a retained claim that another sandbox writes', async () => {
    const holder = await create(mount({ claimName: 'c' }))
    const got = await create(mount({ claimName: 'c' }))
    expect([got.status, got.body.code, got.body.details.holders]).toEqual([
      409,
      'VOLUME::IN_USE',
      [holder.body.id],
    ])
  })

  it('a retained claim that another sandbox only reads, one that is shared, and ReadWriteMany', async () => {
    await create(mount({ claimName: 'c' }, { readOnly: true }))
    expect((await create(mount({ claimName: 'c' }))).status).toBe(202)
    await create(mount({ claimName: 's' }, { shared: true }))
    expect((await create(mount({ claimName: 's' }))).status).toBe(202)
    await create(mount({ claimName: 'rwx', accessModes: ['ReadWriteMany'] }))
    expect((await create(mount({ claimName: 'rwx' }))).status).toBe(202)
  })

  it('two sandboxes that race for a new owned claim: one makes it, the other is told', async () => {
    const both = await Promise.all(
      [1, 2].map(() => create(mount({ claimName: 'c', deleteOnSandboxTermination: true }))),
    )
    expect(both.map((b) => b.status).toSorted((a, b) => a - b)).toEqual([202, 409])
    expect((await server.store.read((tx) => tx.volumes({}))).total).toBe(1)
  })

  it('the workspaces of two sandboxes never meet', async () => {
    const a = await server.call('POST', '/v1/sandboxes', BOX)
    const b = await server.call('POST', '/v1/sandboxes', BOX)
    expect(a.body.volumes[0].uid).not.toBe(b.body.volumes[0].uid)
  })
})

describe('a volume of somebody else’s', () => {
  beforeEach(() => server.behind.createVolume('theirs', { who: 'them' }, {}))

  it('is used, remembered with its creation time, and is not made ours', async () => {
    const got = await create(
      mount({ claimName: 'theirs', deleteOnSandboxTermination: true, createIfNotExists: false }),
    )
    expect(got.body.volumes[0].retention).toBe('retain')
    const row = await byClaim('theirs')
    expect(row).toMatchObject({
      managed: false,
      physicalName: 'theirs',
      owner: null,
      retention: 'retain',
      state: 'ready',
    })
    expect(row?.engineCreatedAt).toBe(server.world.volumes.get('theirs')?.createdAt)
    expect(row?.notEnforced).toHaveLength(1)
    expect(server.world.mutations()).toBe(0)
  })

  it('is looked at again once nobody uses it: made anew, or gone', async () => {
    const first = await create(mount({ claimName: 'theirs' }))
    const uid = first.body.volumes[0].uid
    const end = async (id: string): Promise<void> =>
      server.store.write(true, async (tx) => {
        const record = await tx.sandbox(id)
        if (record !== null) await tx.updateSandbox({ ...record, desired: 'deleted', deletedAt: 1 })
      })
    await end(first.body.id)
    server.behind.removeVolume('theirs')
    await new Promise((resolve) => setTimeout(resolve, 5))
    server.behind.createVolume('theirs', {}, {})
    const second = await create(mount({ claimName: 'theirs' }))
    expect(second.body.volumes[0].uid).toBe(uid)
    expect((await byClaim('theirs'))?.engineCreatedAt).toBe(server.world.volumes.get('theirs')?.createdAt)
    await end(second.body.id)
    server.behind.removeVolume('theirs')
    const third = await create(mount({ claimName: 'theirs' }))
    expect(third.body.volumes[0].uid).not.toBe(uid)
    expect(await byClaim('theirs')).toMatchObject({ managed: true, state: 'planned' })
    expect(await server.store.read((tx) => tx.volume(uid))).toMatchObject({ state: 'removed' })
  })

  it('cannot be a way into a volume of ours by its physical name', async () => {
    const victim = await server.call('POST', '/v1/sandboxes', BOX)
    const row = await server.store.read((tx) => tx.volume(victim.body.volumes[0].uid))
    const name = row?.physicalName ?? ''
    server.behind.createVolume(
      name,
      labelsFor({ installation: server.store.installation, uid: row?.uid ?? '', name, kind: 'volume' }),
      {},
    )
    const got = await create(mount({ claimName: name }))
    expect(got.status).toBe(409)
    expect(got.body.message).toContain(victim.body.id)
  })

  it('nor one of ours that no row knows', async () => {
    server.behind.createVolume(
      'stray',
      labelsFor({ installation: server.store.installation, uid: 'u', name: 'stray', kind: 'volume' }),
      {},
    )
    expect((await create(mount({ claimName: 'stray' }))).body.code).toBe('VOLUME::CLAIM_TAKEN')
  })
})

describe('a look-up that fails', () => {
  it('fails closed: 503, nothing created', async () => {
    await server.close()
    server = await startServer({
      wrap: (engine) => ({
        ...engine,
        inspectVolume: () => Promise.reject(new EngineError('denied', 'none', 'not allowed')),
      }),
    })
    const got = await create(mount({ claimName: 'c' }))
    expect([got.status, got.body.code]).toEqual([503, 'SERVICE_UNAVAILABLE'])
    expect(await sandboxes()).toBe(0)
    expect(await byClaim('c')).toBeNull()
    expect(noFaults).toBeDefined()
  })

  it('is not needed for a claim that the store knows', async () => {
    await create(mount({ claimName: 'c' }, { shared: true }))
    server.behind.killDaemon()
    expect((await create(mount({ claimName: 'c' }))).status).toBe(202)
    expect((await create(mount({ claimName: 'new' }))).status).toBe(503)
    expect((await server.call('POST', '/v1/sandboxes', BOX)).status).toBe(202)
  })
})

describe('volumes of their own', () => {
  const volume = (body: object, headers: Record<string, string> = {}): Promise<Answer> =>
    server.call('POST', '/v1/volumes', body, headers)

  it('create, list, get by uid and by claim', async () => {
    const got = await volume(
      { claimName: 'shared', shared: true, storage: '1Gi' },
      { 'idempotency-key': 'k' },
    )
    expect(got.status).toBe(201)
    expect(got.body).toMatchObject({
      claimName: 'shared',
      kind: 'claim',
      shared: true,
      owner: null,
      state: 'planned',
      retention: 'retain',
      mountedBy: [],
      sizeBytes: 2 ** 30,
    })
    expect(got.body.notEnforced).toHaveLength(1)
    expect(server.kicks).toEqual([`volume/${got.body.uid}`])
    expect(
      (await volume({ claimName: 'shared', shared: true, storage: '1Gi' }, { 'idempotency-key': 'k' })).body,
    ).toEqual(got.body)
    const holder = await create(mount({ claimName: 'shared' }))
    for (const ref of ['shared', got.body.uid]) {
      expect((await server.call('GET', `/v1/volumes/${ref}`)).body).toMatchObject({
        uid: got.body.uid,
        mountedBy: [holder.body.id],
      })
    }
    const list = await server.call('GET', '/v1/volumes')
    expect(list.body.items).toHaveLength(1)
    expect(list.body.pagination.totalItems).toBe(1)
  })

  it('a claim is made once, and never beside somebody else’s volume', async () => {
    await volume({ claimName: 'a' })
    expect((await volume({ claimName: 'a' })).body.code).toBe('VOLUME::CLAIM_TAKEN')
    server.behind.createVolume('theirs', {}, {})
    expect((await volume({ claimName: 'theirs' })).body.code).toBe('VOLUME::CLAIM_TAKEN')
  })

  it.each([
    [{ claimName: 'A' }, 'claimName'],
    [{}, 'claimName'],
    [{ claimName: 'a', storage: 'x' }, 'storage'],
    [{ claimName: 'a', retention: 'maybe' }, 'retention'],
    [{ claimName: 'a', colour: 1 }, 'colour'],
  ])('bad input %j', async (body, path) => {
    const got = await volume(body)
    expect([got.status, got.body.details.issues[0].path]).toEqual([400, path])
    expect((await server.store.read((tx) => tx.volumes({}))).total).toBe(0)
  })

  it('a purge is recorded with its consent; of a mounted one it is refused, not recorded', async () => {
    const { body } = await volume({ claimName: 'v' })
    const holder = await create(mount({ claimName: 'v' }))
    const refused = await server.call('DELETE', `/v1/volumes/${body.uid}`)
    expect([refused.status, refused.body.code, refused.body.details.holders]).toEqual([
      409,
      'VOLUME::IN_USE',
      [holder.body.id],
    ])
    expect(await byClaim('v')).toMatchObject({ purge: null })
    await server.store.write(true, async (tx) => {
      const record = await tx.sandbox(holder.body.id)
      if (record !== null) await tx.updateSandbox({ ...record, desired: 'deleted', deletedAt: 1 })
    })
    server.kicks.length = 0
    for (let i = 0; i < 2; i++) {
      const got = await server.call('DELETE', '/v1/volumes/v')
      expect([got.status, got.body]).toEqual([202, { uid: body.uid, state: 'removing' }])
    }
    expect(await byClaim('v')).toMatchObject({ state: 'removing', purge: { by: 'user' } })
    expect(server.kicks).toContain(`volume/${body.uid}`)
    expect((await create(mount({ claimName: 'v' }))).body.code).toBe('VOLUME::REMOVING')
    expect((await server.call('DELETE', '/v1/volumes/nope')).body.code).toBe('VOLUME::NOT_FOUND')
    expect((await server.call('GET', '/v1/volumes/nope')).status).toBe(404)
  })
})
