import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { EngineError } from '../../src/model/facts.ts'
import { decodeHold, encodeHold, HOLD_META } from '../../src/model/hold.ts'
import { BOX, startServer, type Json, type TestServer } from './api-support/server.ts'

let server: TestServer
beforeEach(async () => {
  server = await startServer({ reconcile: true })
})
afterEach(() => server.close())

const get = async (path: string): Promise<Json> => (await server.call('GET', `/v1${path}`)).body

async function make(name: string): Promise<string> {
  const { body } = await server.call('POST', '/v1/sandboxes', { ...BOX, name })
  await server.phase(body.id, 'Running')
  return body.id
}

/** As after a restore: from now on it is held. */
async function hold(): Promise<void> {
  const value = encodeHold({ reason: 'restored', since: Date.now(), backupAt: Date.UTC(2026, 0, 2) })
  await server.store.write(true, (tx) => tx.setMeta(HOLD_META, value))
}

describe('while removals are held', () => {
  it('a delete and a purge are refused with what to do, and nothing is recorded', async () => {
    const id = await make('a')
    await server.call('POST', '/v1/volumes', { claimName: 'cache' })
    await hold()
    for (const path of [`/sandboxes/${id}`, '/volumes/cache']) {
      const answer = await server.call('DELETE', `/v1${path}`)
      expect([path, answer.status]).toEqual([path, 409])
      expect(answer.body).toMatchObject({ code: 'REMOVALS_HELD' })
      expect(answer.body.message).toContain('restored from a backup of 2026-01-02T00:00:00.000Z')
      expect(answer.body.suggestion).toContain('holdfast rebuild --confirm')
    }
    expect(await get(`/sandboxes/${id}`)).toMatchObject({ status: { state: 'Running' } })
    expect((await get('/volumes/cache')).state).not.toBe('removing')
  })

  it('info, explain, audit and recovery tell of it', async () => {
    const id = await make('a')
    expect(await get('/info')).toMatchObject({ hold: null })
    expect(await get('/recovery')).toEqual({ hold: null, waiting: [], quarantine: [], unreadable: [] })
    await hold()
    expect((await get('/info')).hold).toMatchObject({ reason: 'restored' })
    expect((await get(`/sandboxes/${id}/explain`)).held).toContain('restored')
    expect((await get('/audit')).held).toContain('restored')
    expect((await get('/recovery')).hold).toMatchObject({ reason: 'restored' })
  })

  it('a confirm ends it, once, with an event, and deletes go again', async () => {
    const id = await make('a')
    await hold()
    const { body } = await server.call('POST', '/v1/recovery/confirm')
    expect(body.lifted).toMatchObject({ reason: 'restored' })
    expect((await server.call('POST', '/v1/recovery/confirm')).body).toEqual({ lifted: null })
    const events = (await server.store.read((tx) => tx.events({ limit: 1000 }))).filter(
      (e) => e.reason === 'HoldLifted',
    )
    expect(events).toHaveLength(1)
    expect((await server.call('DELETE', `/v1/sandboxes/${id}`)).status).toBe(204)
  })

  it('a confirm is refused while the engine is away: nobody knows then what the store lacks', async () => {
    await server.close()
    server = await startServer({ healthy: false })
    await hold()
    expect(await server.call('POST', '/v1/recovery/confirm')).toMatchObject({ status: 503 })
    expect((await get('/info')).hold).not.toBeNull()
  })

  it('a confirm is refused until a list of the engine succeeded since the start, also when it answers otherwise', async () => {
    await server.close()
    let lists = false
    server = await startServer({
      reconcile: true,
      wrap: (engine) => ({
        ...engine,
        listInstances: (call) =>
          lists ? engine.listInstances(call) : Promise.reject(new EngineError('failed', 'none', 'no list')),
      }),
    })
    await hold()
    await expect
      .poll(async () => (await server.call('GET', '/ready')).body)
      .toMatchObject({
        ready: true,
        engineOk: true,
      })
    expect(await server.call('POST', '/v1/recovery/confirm')).toMatchObject({ status: 503 })
    expect((await get('/info')).hold).not.toBeNull()
    lists = true
    await expect
      .poll(async () => (await server.call('POST', '/v1/recovery/confirm')).status, { timeout: 20_000 })
      .toBe(200)
  })
})

it('a hold that cannot be read holds', () => {
  expect(decodeHold('{"reason":"rest')).toMatchObject({ reason: 'unreadable' })
  expect(decodeHold('{"reason":"other","since":1}')).toMatchObject({ reason: 'unreadable' })
  expect([decodeHold(null), decodeHold('')]).toEqual([null, null])
})
