import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Phase, SandboxRecord } from '../../src/model/records.ts'
import { BOX, startServer, type Answer, type TestServer } from './api-support/server.ts'

let server: TestServer
beforeEach(async () => {
  server = await startServer()
})
afterEach(() => server.close())

async function made(body: object = {}): Promise<string> {
  const got = await server.call('POST', '/v1/sandboxes', { ...BOX, ...body })
  expect(got.status).toBe(202)
  server.kicks.length = 0
  return got.body.id
}

const row = async (id: string): Promise<SandboxRecord> => {
  const record = await server.store.read((tx) => tx.sandbox(id))
  if (record === null) throw new Error(`no row ${id}`)
  return record
}

/** What the reconciler would have written. */
async function observed(id: string, phase: Phase, over: Partial<SandboxRecord> = {}): Promise<void> {
  await server.store.write(true, async (tx) => {
    const record = await tx.sandbox(id)
    if (record === null) throw new Error(`no row ${id}`)
    await tx.updateSandbox({ ...record, ...over, status: { ...record.status, phase } })
  })
}

const wish = (id: string, action: string): Promise<Answer> =>
  server.call('POST', `/v1/sandboxes/${id}/${action}`)

const TROUBLE = {
  backoff: { attempts: 4, nextAt: 9e12, error: 'no image', code: 'image-missing', at: 1 },
  breaker: { since: 1, reason: 'x', probeAt: 9e12 },
  restarts: 7,
}

describe('wishes', () => {
  it.each([
    ['stop', 'Running', 'stopped', 'Stopping'],
    ['pause', 'Running', 'paused', 'Pausing'],
  ] as const)('%s from %s', async (action, phase, desired, shown) => {
    const id = await made()
    await observed(id, phase, TROUBLE)
    const got = await wish(id, action)
    expect(got.status).toBe(202)
    expect(got.body).toBeNull()
    expect(got.headers['content-length']).toBe('0')
    expect(await row(id)).toMatchObject({
      desired,
      desiredReason: 'user',
      generation: 2,
      backoff: null,
      breaker: null,
      restarts: 0,
      status: { phase: shown },
    })
    expect(server.kicks).toEqual([`sandbox/${id}`])
  })

  it('asking for what holds changes nothing, and is no error', async () => {
    const id = await made()
    await observed(id, 'Running')
    await wish(id, 'stop')
    const before = await row(id)
    expect((await wish(id, 'stop')).status).toBe(202)
    expect(await row(id)).toEqual(before)
    await wish(id, 'start')
    await observed(id, 'Running')
    const running = await row(id)
    expect((await wish(id, 'start')).status).toBe(202)
    // The wish is noted, since what ran may have ended unseen; nothing of what is wanted or shown changes.
    const { generation, desired, status } = running
    expect(await row(id)).toMatchObject({ generation, desired, status, startAsked: true })
  })

  it.each(['Failed', 'Blocked', 'Unknown', 'Starting', 'Pending'] as const)(
    'start from %s clears what went wrong',
    async (phase) => {
      const id = await made()
      await observed(id, phase, TROUBLE)
      expect((await wish(id, 'start')).status).toBe(202)
      expect(await row(id)).toMatchObject({
        desired: 'running',
        desiredReason: 'user',
        recoverSeq: 1,
        backoff: null,
        breaker: null,
      })
    },
  )

  it.each(['start', 'resume', 'restart', 'recover'])(
    '%s of a lost one is the leave to replace it',
    async (action) => {
      const id = await made()
      await observed(id, 'Lost')
      expect((await wish(id, action)).status).toBe(202)
      expect(await row(id)).toMatchObject({
        desired: 'running',
        recoverSeq: 1,
        recoveredSeq: 0,
        status: { phase: 'Starting' },
      })
    },
  )

  it('resume of a paused one, and start as well', async () => {
    for (const action of ['resume', 'start']) {
      const id = await made()
      await observed(id, 'Running')
      await wish(id, 'pause')
      await observed(id, 'Paused')
      expect((await wish(id, action)).status).toBe(202)
      expect(await row(id)).toMatchObject({
        desired: 'running',
        generation: 3,
        status: { phase: 'Resuming' },
      })
    }
  })

  it('restart counts every time and grows the generation', async () => {
    const id = await made()
    await observed(id, 'Running')
    await wish(id, 'restart')
    await wish(id, 'restart')
    expect(await row(id)).toMatchObject({ restartSeq: 2, generation: 3, desired: 'running' })
  })

  it('a wrong state is 409 and names the state and what is possible', async () => {
    const id = await made()
    const got = await wish(id, 'pause')
    expect([got.status, got.body.code]).toEqual([409, 'SANDBOX::INVALID_STATE'])
    expect(got.body.details).toMatchObject({ state: 'Pending', action: 'pause' })
    expect(got.body.details.possible).toContain('stop')
    await server.call('DELETE', `/v1/sandboxes/${id}`)
    const late = await wish(id, 'start')
    expect([late.status, late.body.details.possible]).toEqual([409, []])
  })

  it('an unknown id is 404 everywhere', async () => {
    for (const action of ['stop', 'start', 'restart', 'pause', 'resume', 'recover']) {
      expect((await wish('nope', action)).body.code).toBe('SANDBOX::NOT_FOUND')
    }
    for (const path of ['', '/explain', '/logs', '/stats', '/archive?path=/x', '/events', '/endpoints/80']) {
      const got = await server.call('GET', `/v1/sandboxes/nope${path}`)
      expect([path, got.status, got.body.code]).toEqual([path, 404, 'SANDBOX::NOT_FOUND'])
    }
    expect((await server.call('DELETE', '/v1/sandboxes/nope')).status).toBe(404)
    expect((await server.call('PATCH', '/v1/sandboxes/nope', { name: 'x' })).status).toBe(404)
  })

  it('an engine that cannot pause is 501', async () => {
    const other = await startServer({ engine: { capabilities: { pause: false } } })
    try {
      const { body } = await other.call('POST', '/v1/sandboxes', BOX)
      const got = await other.call('POST', `/v1/sandboxes/${body.id}/pause`)
      expect([got.status, got.body.code]).toEqual([501, 'UNSUPPORTED'])
    } finally {
      await other.close()
    }
  })
})

describe('delete', () => {
  it('is recorded, may be repeated, and is 404 once it is done', async () => {
    const id = await made()
    for (let i = 0; i < 2; i++) {
      const got = await server.call('DELETE', `/v1/sandboxes/${id}`)
      expect([got.status, got.body, got.headers['content-length']]).toEqual([204, null, '0'])
    }
    expect(await row(id)).toMatchObject({ desired: 'deleted', desiredReason: 'user', generation: 2 })
    expect((await server.call('GET', `/v1/sandboxes/${id}`)).status).toBe(200)
    await observed(id, 'Terminated', { deletedAt: 5 })
    expect((await server.call('DELETE', `/v1/sandboxes/${id}`)).status).toBe(404)
    expect((await server.call('GET', `/v1/sandboxes/${id}`)).status).toBe(404)
    const tombstone = await server.call('GET', `/v1/sandboxes/${id}?includeDeleted=true`)
    expect([tombstone.status, tombstone.body.deletedAt]).toEqual([200, new Date(5).toISOString()])
    expect((await server.call('GET', '/v1/sandboxes')).body.items).toEqual([])
    expect((await server.call('GET', '/v1/sandboxes?includeDeleted=true')).body.items).toHaveLength(1)
    const events = await server.call('GET', `/v1/sandboxes/${id}/events`)
    expect(events.body.items.map((e: { reason: string }) => e.reason)).toEqual(['Created', 'DeleteRequested'])
  })
})

describe('renew-expiration', () => {
  const renew = (id: string, expiresAt: string): Promise<Answer> =>
    server.call('POST', `/v1/sandboxes/${id}/renew-expiration`, { expiresAt })

  it('moves it later, never earlier, never into the past', async () => {
    const id = await made({ timeout: 60 })
    const held = (await row(id)).expiresAt ?? 0
    const later = new Date(held + 60_000).toISOString()
    const got = await renew(id, later)
    expect([got.status, got.body]).toEqual([200, { expiresAt: later }])
    expect((await row(id)).expiresAt).toBe(held + 60_000)
    for (const bad of [later, new Date(held).toISOString(), '2001-01-01T00:00:00Z', 'soon']) {
      const refused = await renew(id, bad)
      expect([refused.status, refused.body.details.issues[0].path]).toEqual([400, 'expiresAt'])
    }
    expect((await row(id)).expiresAt).toBe(held + 60_000)
  })

  it('takes another offset than UTC', async () => {
    const id = await made({ timeout: 60 })
    const got = await renew(id, '2999-01-01T02:00:00+02:00')
    expect(got.body).toEqual({ expiresAt: '2999-01-01T00:00:00.000Z' })
  })

  it('409 when it never expires', async () => {
    const got = await renew(await made(), '2999-01-01T00:00:00Z')
    expect([got.status, got.body.code]).toEqual([409, 'SANDBOX::NEVER_EXPIRES'])
  })
})

describe('update', () => {
  const update = (id: string, body: object): Promise<Answer> =>
    server.call('PATCH', `/v1/sandboxes/${id}`, body)

  it('makes a new generation of the spec and merges environment and limits', async () => {
    const id = await made({ env: { A: '1', B: '2' }, resourceLimits: { cpu: '1', memory: '1Gi' } })
    await observed(id, 'Running', { imageId: 'sha256:1', ...TROUBLE })
    const before = await row(id)
    const got = await update(id, {
      image: { uri: 'other' },
      env: { A: null, C: '3' },
      resourceLimits: { cpu: '250m', memory: null },
    })
    expect([got.status, got.body.generation]).toEqual([202, 2])
    const after = await row(id)
    expect(after.spec).toMatchObject({ image: 'other', env: { B: '2', C: '3' }, limits: { cpuMillis: 250 } })
    expect(after.spec.mounts).toEqual(before.spec.mounts)
    expect(after.specHash).not.toBe(before.specHash)
    expect(after).toMatchObject({ imageId: null, desired: 'running', backoff: null, breaker: null })
  })

  it('settings alone replace nothing', async () => {
    const id = await made()
    const before = await row(id)
    const got = await update(id, { restartPolicy: 'always', stopGraceSeconds: 1, name: 'renamed' })
    expect(got.body).toMatchObject({
      generation: 1,
      restartPolicy: 'always',
      stopGraceSeconds: 1,
      name: 'renamed',
    })
    expect((await row(id)).specHash).toBe(before.specHash)
  })

  it('leaves a stopped one stopped', async () => {
    const id = await made()
    await wish(id, 'stop')
    await update(id, { env: { A: '1' } })
    expect(await row(id)).toMatchObject({ desired: 'stopped', generation: 3 })
  })

  it('refuses what is wrong, with the path', async () => {
    const id = await made()
    await made({ name: 'other' })
    for (const [body, path] of [
      [{ colour: 1 }, 'colour'],
      [{ env: { '1A': 'x' } }, 'env.1A'],
      [{ resourceLimits: { cpu: 'x' } }, 'resourceLimits.cpu'],
      [{ image: {} }, 'image.uri'],
      [{ volumes: [] }, 'volumes'],
      [{}, ''],
    ] as const) {
      const got = await update(id, body)
      expect([got.status, got.body.code, got.body.details.issues[0].path]).toEqual([
        400,
        'INVALID_REQUEST',
        path,
      ])
    }
    expect((await update(id, { name: 'other' })).body.code).toBe('SANDBOX::NAME_TAKEN')
    expect((await update(id, { image: { uri: 'dir:/etc' } })).body.code).toBe('HOST_PATH::NOT_ALLOWED')
    expect((await row(id)).generation).toBe(1)
  })
})

describe('metadata', () => {
  it('merges by RFC 7396, also as application/merge-patch+json', async () => {
    const id = await made({ metadata: { a: '1', b: '2' } })
    const got = await server.call(
      'PATCH',
      `/v1/sandboxes/${id}/metadata`,
      { a: null, c: '3' },
      { 'content-type': 'application/merge-patch+json' },
    )
    expect([got.status, got.body.metadata]).toEqual([200, { b: '2', c: '3' }])
    expect((await row(id)).generation).toBe(1)
    const bad = await server.call('PATCH', `/v1/sandboxes/${id}/metadata`, { 'opensandbox.io/id': 'x' })
    expect(bad.status).toBe(400)
  })
})

describe('list', () => {
  it('pages, newest first', async () => {
    const ids: string[] = []
    for (let i = 0; i < 5; i++) ids.push(await made({ name: `n${i}` }))
    const got = await server.call('GET', '/v1/sandboxes?page=2&pageSize=2')
    expect(got.body.items).toHaveLength(2)
    expect(got.body.pagination).toEqual({
      page: 2,
      pageSize: 2,
      totalItems: 5,
      totalPages: 3,
      hasNextPage: true,
    })
    const all = await server.call('GET', '/sandboxes')
    expect(all.body.items.map((s: { id: string }) => s.id).toSorted()).toEqual(ids.toSorted())
    expect((await server.call('GET', '/v1/sandboxes?page=9')).body).toMatchObject({
      items: [],
      pagination: { hasNextPage: false },
    })
  })

  it.each(['page=0', 'page=x', 'pageSize=201', 'pageSize=0'])('%s is 400', async (query) => {
    const got = await server.call('GET', `/v1/sandboxes?${query}`)
    expect([got.status, got.body.code, got.body.details.issues[0].path]).toEqual([
      400,
      'INVALID_REQUEST',
      query.split('=')[0],
    ])
  })

  it('filters by state, in any case, and by metadata', async () => {
    const a = await made({ metadata: { team: 'ml', env: 'x' } })
    const b = await made({ metadata: { team: 'ml' } })
    await observed(b, 'Lost')
    const ids = async (query: string): Promise<string[]> =>
      (await server.call('GET', `/v1/sandboxes?${query}`)).body.items.map((s: { id: string }) => s.id)
    expect(await ids('state=pending')).toEqual([a])
    expect((await ids('state=PENDING&state=lost')).toSorted()).toEqual([a, b].toSorted())
    expect(await ids('state=running')).toEqual([])
    expect(await ids(`metadata=${encodeURIComponent('team=ml&env=x')}`)).toEqual([a])
    expect(await ids(`metadata=${encodeURIComponent('team=other')}`)).toEqual([])
  })

  it.each(['team', '=x', 'a=%zz'])('a malformed metadata filter %s', async (text) => {
    const got = await server.call('GET', `/v1/sandboxes?metadata=${encodeURIComponent(text)}`)
    expect([got.status, got.body.code]).toEqual([400, 'INVALID_METADATA_FORMAT'])
  })

  it('resolves names, ids and unique prefixes', async () => {
    const id = await made({ name: 'mine' })
    const resolve = (ref: string): Promise<Answer> => server.call('GET', `/v1/resolve?ref=${ref}`)
    for (const ref of ['mine', id, id.slice(0, 8)]) expect((await resolve(ref)).body).toEqual({ id })
    expect((await resolve('nothing')).body.code).toBe('SANDBOX::NOT_FOUND')
    const others: string[] = [id]
    // 23 first letters: of 30 ids two begin alike.
    while (others.length < 30) others.push(await made())
    const shared = others.find((x) => others.filter((y) => y[0] === x[0]).length > 1)?.[0] ?? ''
    const got = await resolve(shared)
    expect([got.status, got.body.code]).toEqual([409, 'SANDBOX::AMBIGUOUS'])
  })
})
