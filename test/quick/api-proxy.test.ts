import { createServer, request as httpRequest, type IncomingMessage, type Server } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import type { Engine } from '../../src/engines/engine.ts'
import { EngineError } from '../../src/model/facts.ts'
import { startServer, type Json, type TestServer } from './api-support/server.ts'

let server: TestServer
let app: Server
let sockets: WebSocketServer
let id: string
let api: string
let proxy: number
let seen: IncomingMessage[]

/** What runs in the sandbox: an ordinary web server on this machine, dialled for every port but a few. */
function dialTo(port: () => number): Engine['dial'] {
  return (_id, wanted) => {
    if (wanted === 9) return Promise.reject(new EngineError('failed', 'none', 'connection refused'))
    if (wanted === 10) return Promise.reject(new EngineError('timeout', 'none', 'no answer'))
    if (wanted === 11) return Promise.reject(new EngineError('unsupported', 'none', 'no'))
    return new Promise((resolve, reject) => {
      const socket = connect(port(), '127.0.0.1', () => resolve(socket))
      socket.once('error', reject)
    })
  }
}

beforeEach(async () => {
  seen = []
  app = createServer((request, response) => {
    seen.push(request)
    if (request.url?.startsWith('/stream') === true) {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'x-a': '1' })
      response.write('data: one\n\n')
      request.on('close', () => response.end())
      return
    }
    if (request.url?.startsWith('/hangup') === true) {
      request.socket.destroy()
      return
    }
    if (request.url?.startsWith('/empty') === true) {
      response.writeHead(202, { 'content-length': '0' }).end()
      return
    }
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      response.writeHead(200, {
        'content-type': 'application/json',
        'set-cookie': ['app=1', 'holdfast-link=stolen'],
      })
      response.end(
        JSON.stringify({
          method: request.method,
          url: request.url,
          headers: request.headers,
          raw: request.rawHeaders,
          size: Buffer.concat(chunks).length,
        }),
      )
    })
  })
  sockets = new WebSocketServer({ server: app, path: '/ws' })
  sockets.on('connection', (socket, request) => {
    seen.push(request)
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
  })
  await new Promise<void>((resolve) => void app.listen(0, '127.0.0.1', resolve))
  const port = (): number => (app.address() as AddressInfo).port
  server = await startServer({ reconcile: true, wrap: (engine) => ({ ...engine, dial: dialTo(port) }) })
  const at = await server.api.listen()
  api = `http://127.0.0.1:${at.api.port}`
  proxy = at.proxy.port
  const made = await server.call('POST', '/v1/sandboxes', { image: { uri: 'box' } })
  id = made.body.id
  await server.phase(id, 'Running')
})

afterEach(async () => {
  await server.close()
  for (const socket of sockets.clients) socket.terminate()
  app.closeAllConnections()
  await new Promise((resolve) => app.close(resolve))
})

interface Got {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly text: string
  readonly json: Json
}

/** A request to the proxy with any Host, which `fetch` does not allow. */
function ask(
  path: string,
  headers: Record<string, string | string[]> = {},
  options: { method?: string; body?: Buffer | string } = {},
): Promise<Got> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      { host: '127.0.0.1', port: proxy, path, headers, method: options.method ?? 'GET' },
      (response) => {
        let text = ''
        response.on('data', (chunk: Buffer) => (text += chunk.toString()))
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text,
            json: text.startsWith('{') ? JSON.parse(text) : null,
          }),
        )
      },
    )
    request.on('error', reject)
    request.end(options.body)
  })
}

const key = (): Record<string, string> => ({ 'open-sandbox-api-key': server.key })
const byPath = (rest: string, port = 80, headers = key()): Promise<Got> =>
  ask(`/sandboxes/${id}/proxy/${port}${rest}`, headers)

async function link(port = 80): Promise<{ host: string; path: string; token: string }> {
  const { body } = await server.call('POST', `/v1/sandboxes/${id}/ports/${port}/link`)
  const url = new URL(body.url)
  expect(url.port).toBe(String(proxy))
  return {
    host: url.host,
    path: `${url.pathname}${url.search}`,
    token: url.searchParams.get('holdfast-token') ?? '',
  }
}

describe('endpoints', () => {
  it('are on the other origin, without scheme, and end with the port', async () => {
    const got = await server.call(
      'GET',
      `/v1/sandboxes/${id}/endpoints/8080?use_server_proxy=false`,
      undefined,
      { host: 'localhost:1' },
    )
    expect(got.body).toEqual({ endpoint: `localhost:${proxy}/sandboxes/${id}/proxy/8080` })
    const answer = await fetch(`http://${got.body.endpoint.replace('localhost', '127.0.0.1')}/x`, {
      headers: key(),
    })
    expect(answer.status).toBe(200)
  })

  it('44772 and 18080 are our own, answer at once, and their ping tells when it is ready', async () => {
    const made = await server.call('POST', '/v1/sandboxes', { image: { uri: 'missing' } })
    for (const port of [44_772, 18_080]) {
      const ready = await server.call('GET', `/v1/sandboxes/${id}/endpoints/${port}`)
      expect(`http://${ready.body.endpoint}`).toBe(
        `${api.replace('127.0.0.1', 'localhost')}/sandboxes/${id}/proxy/${port}`,
      )
      expect((await fetch(`${api}/sandboxes/${id}/proxy/${port}/ping`, { headers: key() })).status).toBe(200)
      const waiting = await fetch(`${api}/sandboxes/${made.body.id}/proxy/${port}/ping`, { headers: key() })
      expect([waiting.status, ((await waiting.json()) as Json).code]).toEqual([503, 'SERVICE_UNAVAILABLE'])
    }
    const rest = await server.call('POST', `/sandboxes/${id}/proxy/44772/command`, { command: 'true' })
    expect([rest.status, rest.body.code]).toEqual([501, 'NOT_IMPLEMENTED'])
    expect((await server.call('GET', `/sandboxes/${id}/proxy/8080/`)).status).toBe(404)
    expect((await server.call('GET', `/v1/sandboxes/${id}/endpoints/99999`)).status).toBe(400)
    expect((await server.call('GET', `/v1/sandboxes/${id}/endpoints/80?expires=1`)).body.code).toBe(
      'NOT_IMPLEMENTED',
    )
  })
})

describe('the path form', () => {
  it('needs the key header: no cookie and no token will do', async () => {
    expect((await byPath('/', 80, {})).json.code).toBe('MISSING_API_KEY')
    expect((await byPath('/', 80, { 'open-sandbox-api-key': 'x' })).json.code).toBe('INVALID_API_KEY')
    const { token } = await link()
    expect((await byPath(`/?holdfast-token=${token}`, 80, { cookie: `holdfast-link=${token}` })).status).toBe(
      401,
    )
    expect(seen).toEqual([])
  })

  it('passes method, raw path, query and body on, with and without /v1', async () => {
    const got = await byPath('/a/../b%2Fc//d?x=%20&y')
    expect([got.status, got.json.url]).toEqual([200, '/a/../b%2Fc//d?x=%20&y'])
    expect((await ask(`/v1/sandboxes/${id}/proxy/80`, key())).json.url).toBe('/')
    const body = Buffer.alloc(3 * 2 ** 20, 1)
    const sized = await ask(`/sandboxes/${id}/proxy/80/up`, key(), { method: 'PUT', body })
    expect(sized.json).toMatchObject({
      method: 'PUT',
      size: body.length,
      headers: { 'content-length': String(body.length) },
    })
    const chunked = await ask(
      `/sandboxes/${id}/proxy/80/up`,
      { ...key(), 'transfer-encoding': 'chunked' },
      { method: 'DELETE', body: 'abc' },
    )
    expect(chunked.json).toMatchObject({ method: 'DELETE', size: 3 })
  })

  it('strips what is ours and what is of this connection; repeats and spelling stay', async () => {
    const got = await ask(`/sandboxes/${id}/proxy/80/`, {
      ...key(),
      authorization: `Bearer ${server.key}`,
      cookie: 'a=1; holdfast-link=x',
      connection: 'close, X-Secret-Hop',
      'x-secret-hop': '1',
      te: 'trailers',
      'proxy-authorization': 'x',
      'X-Multi': ['1', '2'],
      'x-forwarded-for': '9.9.9.9',
    })
    const { headers, raw } = got.json
    for (const name of [
      'open-sandbox-api-key',
      'authorization',
      'cookie',
      'x-secret-hop',
      'te',
      'proxy-authorization',
    ]) {
      expect([name, headers[name]]).toEqual([name, undefined])
    }
    expect(raw.filter((n: string) => n === 'X-Multi')).toHaveLength(2)
    expect(headers).toMatchObject({
      host: 'localhost:80',
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-proto': 'http',
      'x-forwarded-prefix': `/sandboxes/${id}/proxy/80`,
    })
    expect(got.headers['set-cookie']).toBeUndefined()
    expect(JSON.stringify(got.json)).not.toContain(server.key)
  })

  it('leaves the sandbox’s own authorization alone', async () => {
    const got = await byPath('/', 80, { ...key(), authorization: 'Bearer of-the-app' })
    expect(got.json.headers.authorization).toBe('Bearer of-the-app')
  })

  it('an empty answer keeps its Content-Length: 0', async () => {
    const got = await byPath('/empty')
    expect([got.status, got.headers['content-length']]).toEqual([202, '0'])
  })

  it('streams before the end, and the client’s going reaches the sandbox', async () => {
    const first = await new Promise<string>((resolve, reject) => {
      const request = httpRequest(
        { host: '127.0.0.1', port: proxy, path: `/sandboxes/${id}/proxy/80/stream`, headers: key() },
        (response) => {
          response.once('data', (chunk: Buffer) => {
            resolve(chunk.toString())
            request.destroy()
          })
        },
      )
      request.on('error', reject)
      request.end()
    })
    expect(first).toBe('data: one\n\n')
    await expect.poll(() => seen[0]?.socket.destroyed).toBe(true)
  })

  it('tells 404, 502, 503, 504 and 501 apart, each with a body', async () => {
    expect((await byPath('/', 9)).json).toMatchObject({ code: 'PORT_REFUSED' })
    expect((await byPath('/', 9)).status).toBe(502)
    expect([(await byPath('/hangup')).status, (await byPath('/hangup')).json.code]).toEqual([
      502,
      'PORT_REFUSED',
    ])
    expect([(await byPath('/', 10)).status, (await byPath('/', 10)).json.code]).toEqual([504, 'TIMEOUT'])
    expect([(await byPath('/', 11)).status, (await byPath('/', 11)).json.code]).toEqual([501, 'UNSUPPORTED'])
    expect((await ask('/sandboxes/nope/proxy/80/', key())).json.code).toBe('SANDBOX::NOT_FOUND')
    for (const path of [
      '/',
      '/sandboxes',
      `/sandboxes/${id}/proxy/0/`,
      `/sandboxes/${id}/proxy/65536/`,
      `/sandboxes/${id}/proxy/x/`,
      '/v1/sandboxes',
    ]) {
      expect([path, (await ask(path, key())).status]).toEqual([path, 404])
    }
    await server.call('POST', `/v1/sandboxes/${id}/stop`)
    const stopped = await byPath('/')
    expect([stopped.status, stopped.json.code]).toEqual([503, 'SANDBOX::NOT_RUNNING'])
  })
})

describe('the host form', () => {
  it('a link becomes a cookie of that host, and the token leaves the address', async () => {
    const { host, path, token } = await link()
    expect(host).toBe(`${id}-80.localhost:${proxy}`)
    const got = await ask(`${path}&a=b`, { host })
    expect([got.status, got.headers.location]).toEqual([303, '/?a=b'])
    const cookie = got.headers['set-cookie']?.[0] ?? ''
    expect(cookie).toMatch(/^holdfast-link=[^;]+; Path=\/; Max-Age=\d+; HttpOnly; SameSite=Lax$/)
    expect(got.headers['referrer-policy']).toBe('no-referrer')
    expect(seen).toEqual([])
    const page = await ask('/page', { host, cookie: `app=1; holdfast-link=bad; holdfast-link=${token}` })
    expect(page.json).toMatchObject({ url: '/page', headers: { host, cookie: 'app=1' } })
    expect(page.headers['set-cookie']).toEqual(['app=1'])
  })

  it('opens nothing else: another port, another sandbox, later, or a token that was changed', async () => {
    const { token } = await link()
    const other = await server.call('POST', '/v1/sandboxes', { image: { uri: 'box' } })
    const cookie = `holdfast-link=${token}`
    for (const host of [`${id}-81.localhost`, `${other.body.id}-80.localhost`]) {
      expect([host, (await ask('/', { host, cookie })).status]).toEqual([host, 401])
    }
    const host = `${id}-80.localhost`
    expect((await ask('/', { host })).status).toBe(401)
    expect(
      (
        await ask('/', {
          host,
          cookie: `holdfast-link=${Number.parseInt(token, 10) + 1}${token.slice(token.indexOf('.'))}`,
        })
      ).status,
    ).toBe(401)
    const short = await server.call('POST', `/v1/sandboxes/${id}/ports/80/link`, { expiresInSeconds: 1 })
    await new Promise((resolve) => setTimeout(resolve, 1_100))
    expect((await ask(new URL(short.body.url).search.replace(/^/, '/'), { host })).status).toBe(401)
    expect(
      (await server.call('POST', `/v1/sandboxes/${id}/ports/80/link`, { expiresInSeconds: 0 })).status,
    ).toBe(400)
  })

  it('the key does not open it, and is never passed on', async () => {
    const { token } = await link()
    const host = `${id}-80.localhost`
    expect((await ask('/', { host, ...key() })).status).toBe(401)
    const got = await ask('/', {
      host,
      ...key(),
      authorization: `Bearer ${server.key}`,
      cookie: `holdfast-link=${token}`,
    })
    expect(JSON.stringify(got.json)).not.toContain(server.key)
  })

  it('never sends the browser to another host', async () => {
    const { host, token } = await link()
    for (const path of ['//evil.example/', '/\\evil.example/', '/\\/evil.example']) {
      const got = await ask(`${path}?holdfast-token=${token}`, { host })
      expect(got.headers.location).toMatch(/^\/[^/\\]/)
    }
  })

  it('survives a restart of the server: the signing key is in the store', async () => {
    const { token } = await link()
    const again = server.store.reopen()
    const { createLinkSigner } = await import('../../src/api/ports.ts')
    const signer = createLinkSigner(again, { next: () => 'x', secret: () => 'never used', random: () => 0 })
    expect(await signer.verify(token, id, 80, Date.now())).toBe(true)
    expect(await signer.verify(token, id, 81, Date.now())).toBe(false)
  })
})

describe('WebSockets', () => {
  const open = (
    path: string,
    headers: Record<string, string>,
    protocols: string[] = [],
  ): Promise<WebSocket> =>
    new Promise((resolve, reject) => {
      const socket = new WebSocket(`ws://127.0.0.1:${proxy}${path}`, protocols, { headers })
      socket.once('open', () => resolve(socket))
      socket.once('error', reject)
      socket.once('unexpected-response', (_request, response) => {
        response.resume()
        reject(Object.assign(new Error('refused'), { status: response.statusCode }))
      })
    })

  it.each([
    ['the path form', () => `/sandboxes/${id}/proxy/80/ws?a=b`, async () => key()],
    [
      'the host form',
      () => '/ws?a=b',
      async () => ({ host: `${id}-80.localhost:${proxy}`, cookie: `holdfast-link=${(await link()).token}` }),
    ],
  ])('%s carries frames both ways', async (_what, path, headers) => {
    const socket = await open(path(), await headers())
    const echoes: string[] = []
    socket.on('message', (data: Buffer) => echoes.push(data.toString()))
    for (const text of ['one', 'two', 'x'.repeat(300_000)]) socket.send(text)
    await expect.poll(() => echoes.map((e) => e.length)).toEqual([3, 3, 300_000])
    expect(seen[0]?.url).toBe('/ws?a=b')
    expect(seen[0]?.headers).not.toHaveProperty('open-sandbox-api-key')
    expect(seen[0]?.headers.cookie).toBeUndefined()
    socket.close()
    await expect.poll(() => sockets.clients.size).toBe(0)
  })

  it('is refused as HTTP without a right to it, where nothing listens, and where the sandbox refuses', async () => {
    await expect(open(`/sandboxes/${id}/proxy/80/ws`, {})).rejects.toMatchObject({ status: 401 })
    await expect(open(`/sandboxes/${id}/proxy/9/ws`, key())).rejects.toMatchObject({ status: 502 })
    await expect(open(`/sandboxes/${id}/proxy/80/other`, key())).rejects.toMatchObject({ status: 400 })
  })

  it('a close of the server ends it', async () => {
    const socket = await open(`/sandboxes/${id}/proxy/80/ws`, key())
    const closed = new Promise((resolve) => socket.once('close', resolve))
    await server.api.close()
    await closed
  })
})
