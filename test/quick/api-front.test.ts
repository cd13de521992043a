import { connect } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { BOX, startServer, type TestServer } from './api-support/server.ts'

let server: TestServer
beforeEach(async () => {
  server = await startServer()
})
afterEach(() => server.close())

/** Sends bytes as they are and reads until the server closes. */
function raw(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(text))
    let out = ''
    socket.on('data', (data) => (out += data.toString()))
    socket.on('error', reject)
    socket.on('close', () => resolve(out))
  })
}

describe('keys', () => {
  it.each([
    ['no key', {}, 'MISSING_API_KEY'],
    ['an empty key', { 'open-sandbox-api-key': '' }, 'MISSING_API_KEY'],
    ['a wrong key', { 'open-sandbox-api-key': 'wrong' }, 'INVALID_API_KEY'],
    ['a wrong bearer', { authorization: 'Bearer wrong' }, 'INVALID_API_KEY'],
    ['another scheme', { authorization: 'Basic eDp5' }, 'MISSING_API_KEY'],
  ])('%s is 401, before the body is looked at', async (_what, headers, code) => {
    const got = await server.api.app.inject({
      method: 'POST',
      url: '/v1/sandboxes',
      headers: { ...headers, 'content-type': 'application/json' },
      payload: '{',
    })
    expect([got.statusCode, got.json().code]).toEqual([401, code])
  })

  it('either header will do', async () => {
    for (const headers of [
      { 'open-sandbox-api-key': server.key },
      { authorization: `Bearer ${server.key}` },
    ]) {
      const got = await server.api.app.inject({ url: '/v1/sandboxes', headers })
      expect(got.statusCode).toBe(200)
    }
  })

  it('what is open is open, and nothing else is', async () => {
    for (const url of [
      '/health',
      '/ready',
      '/openapi.json',
      '/docs',
      '/docs/',
      '/docs/static/index.html',
      '/v1/health',
    ]) {
      const got = await server.api.app.inject({ url })
      expect([url, got.statusCode < 400]).toEqual([url, true])
    }
    for (const url of ['/metrics', '/v1/info', '/v1/nothing', '/v1/sandboxes/x/exec', '/docsx', '/']) {
      expect([url, (await server.api.app.inject({ url })).statusCode]).toEqual([url, 401])
    }
  })

  it('no key is ever logged or answered', async () => {
    const secret = 'hf-very-secret-guess'
    await server.call('GET', '/v1/sandboxes')
    await server.api.app.inject({
      url: `/v1/sandboxes?key=${secret}`,
      headers: { 'open-sandbox-api-key': secret },
    })
    await server.api.app.inject({ url: '/v1/sandboxes', headers: { authorization: `Bearer ${secret}` } })
    const text = server.logs.join('\n')
    expect(text).not.toContain(secret)
    expect(text).not.toContain(server.key)
  })
})

describe('Host', () => {
  it.each(['evil.example', 'localhost.evil.example', 'abc-80.localhost:8080', '10.0.0.1', 'a b'])(
    '%s is refused',
    async (host) => {
      const got = await server.api.app.inject({
        url: '/v1/sandboxes',
        headers: { host, 'open-sandbox-api-key': server.key },
      })
      expect([got.statusCode, got.json().code]).toEqual([403, 'FORBIDDEN_HOST'])
    },
  )

  it.each(['localhost:1', '127.0.0.1', '[::1]:8080', 'LOCALHOST', '127.9.9.9:80'])(
    '%s is loopback',
    async (host) => {
      const got = await server.api.app.inject({
        url: '/v1/sandboxes',
        headers: { host, 'open-sandbox-api-key': server.key },
      })
      expect(got.statusCode).toBe(200)
    },
  )

  it('an allowed name, and any address where all are listened on', async () => {
    const other = await startServer({
      config: { allowedHosts: ['Box.example'], listen: { host: '0.0.0.0', port: 0 } },
    })
    try {
      for (const [host, status] of [
        ['box.EXAMPLE:8080', 200],
        ['10.1.2.3', 200],
        ['other.example', 403],
      ] as const) {
        const got = await other.api.app.inject({
          url: '/v1/sandboxes',
          headers: { host, 'open-sandbox-api-key': other.key },
        })
        expect([host, got.statusCode]).toEqual([host, status])
      }
    } finally {
      await other.close()
    }
  })
})

describe('errors', () => {
  it('every one has code and message, and the request id', async () => {
    const got = await server.call('GET', '/v1/nothing', undefined, { 'x-request-id': 'my-id.1' })
    expect([got.status, got.body.code, got.headers['x-request-id']]).toEqual([
      404,
      'ROUTE_NOT_FOUND',
      'my-id.1',
    ])
    const other = await server.call('DELETE', '/v1/sandboxes', undefined, { 'x-request-id': 'bad id\t' })
    expect(other.status).toBe(404)
    expect(other.headers['x-request-id']).toMatch(/^[a-z0-9]{16}$/)
  })

  it('malformed JSON, and a body that is not JSON', async () => {
    const post = (payload: string, type: string) =>
      server.call('POST', '/v1/sandboxes', payload, { 'content-type': type })
    expect(await post('{', 'application/json')).toMatchObject({
      status: 400,
      body: { code: 'INVALID_REQUEST' },
    })
    expect(await post('{"__proto__":{}}', 'application/json')).toMatchObject({ status: 400 })
    expect(await post('[]', 'application/json')).toMatchObject({
      status: 400,
      body: { code: 'SANDBOX::INVALID_PARAMETER' },
    })
    for (const type of [
      'text/plain',
      'application/x-www-form-urlencoded',
      'multipart/form-data; boundary=x',
    ]) {
      expect(await post('{}', type)).toMatchObject({ status: 415, body: { code: 'UNSUPPORTED_MEDIA_TYPE' } })
    }
    expect(await post('', 'application/json')).toMatchObject({ status: 400 })
  })

  it('a body that is too large', async () => {
    const got = await server.call('POST', '/v1/sandboxes', { ...BOX, env: { A: 'x'.repeat(5 * 2 ** 20) } })
    expect([got.status, got.body.code]).toEqual([413, 'PAYLOAD_TOO_LARGE'])
  })

  it('a malformed URL and a malformed request still get a body', async () => {
    const { api } = await server.api.listen()
    for (const text of [
      `GET /v1/sandboxes/%zz HTTP/1.1\r\nHost: localhost\r\nOPEN-SANDBOX-API-KEY: ${server.key}\r\nConnection: close\r\n\r\n`,
      'nonsense\r\n\r\n',
    ]) {
      const answer = await raw(api.port, text)
      expect(answer).toMatch(/^HTTP\/1\.1 400 /)
      expect(JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4))).toMatchObject({
        code: 'INVALID_REQUEST',
      })
    }
  })

  it('an error of our own is INTERNAL with the request id, logged, and tells nothing else', async () => {
    const other = await startServer({
      wrap: (engine) => ({ ...engine, inspectVolume: () => Promise.reject(new Error('secret detail')) }),
    })
    try {
      const volumes = [{ name: 'd', mountPath: '/d', pvc: { claimName: 'd' } }]
      const got = await other.call('POST', '/v1/sandboxes', { ...BOX, volumes }, { 'x-request-id': 'rid-1' })
      expect([got.status, got.body.code, got.body.details]).toEqual([500, 'INTERNAL', { requestId: 'rid-1' }])
      expect(JSON.stringify(got.body)).not.toContain('secret detail')
      const logged = other.logs.find((line) => line.includes('secret detail')) ?? ''
      expect(logged).toContain('rid-1')
      expect(logged).not.toContain(other.key)
    } finally {
      await other.close()
    }
  })

  it('a listener’s address in use is told by name', async () => {
    const { api, proxy } = await server.api.listen()
    for (const config of [
      { listen: api, proxyListen: { host: '127.0.0.1', port: 0 } },
      { listen: { host: '127.0.0.1', port: 0 }, proxyListen: proxy },
    ]) {
      const other = await startServer({ config })
      await expect(other.api.listen()).rejects.toMatchObject({ code: 'ADDRESS_IN_USE' })
      await other.close()
    }
  })
})

describe('operations', () => {
  it('health, readiness, info, engines, metrics', async () => {
    expect((await server.call('GET', '/health')).body).toEqual({ status: 'ok' })
    expect((await server.call('GET', '/ready')).body).toMatchObject({ ready: true })
    expect((await server.call('GET', '/v1/info')).body).toMatchObject({
      engine: 'simulated',
      stateDir: '/state',
      epoch: server.store.epoch,
      installation: server.store.installation,
    })
    await server.call('POST', '/v1/sandboxes', BOX)
    const engines = await server.call('GET', '/v1/engines')
    expect(engines.body.items[0]).toMatchObject({
      id: 'simulated',
      ok: true,
      capabilities: { pause: true },
      info: { details: {} },
    })
    expect((await server.call('POST', '/v1/metrics/events', { any: 'thing' })).status).toBe(204)
    const metrics = await server.call('GET', '/metrics')
    expect(metrics.body).toContain('holdfast_sandboxes{state="Pending"} 1')
    expect(metrics.body).toContain('holdfast_engine_up{engine="simulated"} 1')
    expect(metrics.body).toMatch(
      /holdfast_http_request_duration_seconds_count\{method="POST",route="\/v1\/sandboxes",status="202"\} 1/,
    )
  })

  it('an engine that is away fails no read, and says so', async () => {
    const other = await startServer({ healthy: false })
    try {
      const { body } = await other.call('POST', '/v1/sandboxes', BOX)
      expect((await other.call('GET', '/v1/sandboxes')).status).toBe(200)
      expect((await other.call('GET', '/v1/engines')).body.items[0]).toMatchObject({
        ok: false,
        error: 'it is away',
      })
      other.behind.killDaemon()
      const why = await other.call('GET', `/v1/sandboxes/${body.id}/explain`)
      expect(why.body).toMatchObject({
        observed: { known: false, since: new Date(1_000).toISOString() },
        engine: { ok: false, error: 'it is away' },
      })
      expect(why.body.suggestions[0]).toBe('holdfast doctor')
      const audit = await other.call('GET', '/v1/audit')
      expect([audit.status, audit.body.code]).toEqual([503, 'ENGINE_UNREACHABLE'])
    } finally {
      await other.close()
    }
  })
})
