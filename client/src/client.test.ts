import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { ApiError, createClient, metadataFilter, type Client } from './index.ts'

const servers: Server[] = []

afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
})

type Answer = (request: IncomingMessage, response: ServerResponse, body: string) => void

async function serve(answer: Answer, port = 0): Promise<{ url: string; port: number; server: Server }> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => answer(request, response, Buffer.concat(chunks).toString()))
  })
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  const bound = (server.address() as AddressInfo).port
  return { url: `http://127.0.0.1:${bound}`, port: bound, server }
}

const send = (response: ServerResponse, status: number, body?: unknown): void => {
  const text = body === undefined ? '' : JSON.stringify(body)
  response
    .writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) })
    .end(text)
}

const clientOf = (baseUrl: string, more: Partial<Parameters<typeof createClient>[0]> = {}): Client =>
  createClient({ baseUrl, apiKey: 'secret', ...more })

async function errorOf(call: Promise<unknown>): Promise<ApiError> {
  const error: unknown = await call.then(
    () => null,
    (e: unknown) => e,
  )
  if (!(error instanceof ApiError)) throw new Error(`no ApiError: ${String(error)}`)
  return error
}

describe('repeating', () => {
  it('repeats a create whose connection was cut, under the same Idempotency-Key and body', async () => {
    const seen: { key: unknown; body: string }[] = []
    const { url } = await serve((request, response, body) => {
      seen.push({ key: request.headers['idempotency-key'], body })
      if (seen.length < 3) request.socket.destroy()
      else send(response, 202, { id: 'a' })
    })
    const made = await clientOf(url).sandboxes.create({ image: { uri: 'busybox' }, env: { A: '1' } })
    expect(made.id).toBe('a')
    expect(seen).toHaveLength(3)
    expect(new Set(seen.map((s) => s.key)).size).toBe(1)
    expect(seen[0]?.key).toMatch(/^[0-9a-f-]{36}$/)
    expect(new Set(seen.map((s) => s.body)).size).toBe(1)
  })

  it('gives two creates two keys, and takes a given one', async () => {
    const keys: unknown[] = []
    const { url } = await serve((request, response) => {
      keys.push(request.headers['idempotency-key'])
      send(response, 202, { id: 'a' })
    })
    const client = clientOf(url)
    await client.sandboxes.create({ image: { uri: 'x' } })
    await client.sandboxes.create({ image: { uri: 'x' } })
    await client.sandboxes.create({ image: { uri: 'x' } }, { idempotencyKey: 'mine' })
    expect(new Set(keys).size).toBe(3)
    expect(keys[2]).toBe('mine')
  })

  it('never repeats an exec, a renewal or an update', async () => {
    let calls = 0
    const { url } = await serve((request) => {
      calls += 1
      request.socket.destroy()
    })
    const client = clientOf(url)
    expect((await errorOf(client.sandboxes.exec('a', { command: ['true'] }))).code).toBe('SERVER_UNREACHABLE')
    await errorOf(client.sandboxes.renew('a', '2026-01-01T00:00:00Z'))
    await errorOf(client.sandboxes.update('a', { name: 'b' }))
    expect(calls).toBe(3)
  })

  it('takes 404 as success for a delete whose first answer was lost, and as an error for a first one', async () => {
    let calls = 0
    const { url } = await serve((request, response) => {
      calls += 1
      if (calls === 1) request.socket.destroy()
      else send(response, 404, { code: 'SANDBOX::NOT_FOUND', message: 'gone' })
    })
    await clientOf(url).sandboxes.remove('a')
    expect(calls).toBe(2)
    expect((await errorOf(clientOf(url).sandboxes.remove('a'))).exitCode).toBe(3)
  })

  it('gives up after the limit, and at once for a read where nothing ever answered', async () => {
    const { url, server } = await serve(() => undefined)
    await new Promise((resolve) => server.close(resolve))
    let clock = 0
    let pauses = 0
    const client = clientOf(url, {
      retryLimitMs: 1000,
      now: () => clock,
      sleep: (ms) => {
        clock += ms
        pauses += 1
        return Promise.resolve()
      },
    })
    const read = await errorOf(client.sandboxes.get('a'))
    expect(read).toMatchObject({ code: 'SERVER_UNREACHABLE', exitCode: 5 })
    expect(read.suggestion).toContain('holdfast server')
    expect(pauses).toBe(0)
    expect((await errorOf(client.sandboxes.create({ image: { uri: 'x' } }))).exitCode).toBe(5)
    expect(pauses).toBeGreaterThan(2)
    expect(clock).toBeLessThanOrEqual(1000)
  })
})

describe('errors', () => {
  it('carries code, status, suggestion and the exit code of the table', async () => {
    const { url } = await serve((_request, response) => {
      response.setHeader('x-request-id', 'r1')
      send(response, 409, { code: 'SANDBOX::NAME_TAKEN', message: 'taken', suggestion: 'choose another' })
    })
    const error = await errorOf(clientOf(url).sandboxes.create({ image: { uri: 'x' } }))
    expect(error).toMatchObject({
      code: 'SANDBOX::NAME_TAKEN',
      status: 409,
      exitCode: 4,
      suggestion: 'choose another',
      requestId: 'r1',
    })
  })

  it.each([
    [500, undefined, 1],
    [404, undefined, 3],
    [502, '<html>bad gateway</html>', 1],
    [418, { unknown: true }, 1],
  ])('takes a %i with a body that is not ours as an error too', async (status, body, exitCode) => {
    const { url } = await serve((_request, response) => send(response, status, body))
    expect(await errorOf(clientOf(url).sandboxes.get('a'))).toMatchObject({
      code: 'HTTP_ERROR',
      status,
      exitCode,
    })
  })

  it('says so when what answers is no Holdfast server', async () => {
    const { url } = await serve((_request, response) => response.end('<html>hello</html>'))
    expect((await errorOf(clientOf(url).info())).code).toBe('BAD_ANSWER')
  })

  it('sends the key to the server, and not to where that redirects', async () => {
    let reached = false
    const other = await serve((_request, response) => {
      reached = true
      send(response, 200, {})
    })
    const keys: unknown[] = []
    const { url } = await serve((request, response) => {
      keys.push(request.headers['open-sandbox-api-key'])
      response.writeHead(307, { location: `${other.url}/v1/info` }).end()
    })
    await errorOf(clientOf(url, { retryLimitMs: 0 }).info())
    expect(keys).toEqual(['secret'])
    expect(reached).toBe(false)
  })

  it('ends a request that takes too long with TIMEOUT', async () => {
    const { url } = await serve(() => undefined)
    const error = await errorOf(clientOf(url, { requestLimitMs: 50 }).sandboxes.exec('a', { command: ['x'] }))
    expect(error).toMatchObject({ code: 'TIMEOUT', exitCode: 124 })
  })
})

describe('lists and streams', () => {
  it('walks over every page and repeats the state filter', async () => {
    const queries: string[] = []
    const { url } = await serve((request, response) => {
      const at = new URL(request.url ?? '', 'http://x')
      queries.push(at.search)
      const page = Number(at.searchParams.get('page'))
      send(response, 200, { items: [{ id: `s${page}` }], pagination: { page, hasNextPage: page < 3 } })
    })
    const found = await clientOf(url).sandboxes.list({
      state: ['Lost', 'Blocked'],
      metadata: { team: 'a b' },
    })
    expect(found.map((s) => s.id)).toEqual(['s1', 's2', 's3'])
    const first = new URL(queries[0] ?? '', 'http://x').searchParams
    expect(first.getAll('state')).toEqual(['Lost', 'Blocked'])
    expect(new URLSearchParams(first.get('metadata') ?? '').get('team')).toBe('a b')
  })

  it('encodes a metadata filter so that any value comes back', () => {
    const odd = { 'a&b': 'c=d', e: 'ü %' }
    expect(Object.fromEntries(new URLSearchParams(metadataFilter(odd)))).toEqual(odd)
  })

  it('reads log lines over chunk borders, bytes untouched', async () => {
    const data = Buffer.from([0, 255, 10, 195])
    const lines = [
      { stream: 'stdout', time: '2026-01-01T00:00:00Z', data: data.toString('base64') },
      { stream: 'stderr', time: null, data: Buffer.from('é').toString('base64') },
    ]
    const text = Buffer.from(`${lines.map((l) => JSON.stringify(l)).join('\n')}\n{"stream":"cut`)
    const { url } = await serve((_request, response) => {
      response.write(text.subarray(0, 17))
      setTimeout(() => response.end(text.subarray(17)), 20)
    })
    const got = []
    for await (const line of clientOf(url).sandboxes.logs('a')) got.push(line)
    expect(got.map((l) => l.stream)).toEqual(['stdout', 'stderr'])
    expect(Buffer.from(got[0]?.data ?? []).equals(data)).toBe(true)
    expect(Buffer.from(got[1]?.data ?? []).toString()).toBe('é')
  })

  it('follows events over a lost connection from the last one seen', async () => {
    const asked: unknown[] = []
    const event = (seq: number): string =>
      `id: ${seq}\ndata: ${JSON.stringify({ seq, reason: `R${seq}` })}\n\n`
    const { url } = await serve((request, response) => {
      asked.push(request.headers['last-event-id'])
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      if (asked.length === 1) {
        response.write(`: hello\n\n${event(5)}${event(6)}`)
        setTimeout(() => request.socket.destroy(), 20)
      } else response.write(event(7))
    })
    const leave = new AbortController()
    const got: number[] = []
    for await (const { seq } of clientOf(url).events.follow({ after: 4, signal: leave.signal })) {
      got.push(seq)
      if (seq === 7) leave.abort()
    }
    expect(got).toEqual([5, 6, 7])
    expect(asked).toEqual(['4', '6'])
  })
})
