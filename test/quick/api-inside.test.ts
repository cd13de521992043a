import { readdir, readFile } from 'node:fs/promises'
import { extract, pack } from 'tar-stream'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { createShellExec, type ShellExec } from '../support/shell-exec.ts'
import { startServer, type Json, type TestServer } from './api-support/server.ts'

let server: TestServer
let shell: ShellExec
let url: string
beforeEach(async () => {
  // Commands are processes of this machine: what the sandbox would run is of no interest here, how it is carried is.
  shell = await createShellExec({ shell: '/bin/sh' })
  server = await startServer({
    reconcile: true,
    engine: { capabilities: { lanes: true } },
    wrap: (engine) => ({ ...engine, exec: (id, request, call) => shell.engine.exec(id, request, call) }),
  })
  const { api } = await server.api.listen()
  url = `http://127.0.0.1:${api.port}`
})
afterEach(async () => {
  await server.close()
  await shell.close()
})

async function running(entrypoint: string[] = ['sim', 'run']): Promise<string> {
  const { body } = await server.call('POST', '/v1/sandboxes', { image: { uri: 'box' }, entrypoint })
  await server.phase(body.id, 'Running')
  return body.id
}

const headers = (): Record<string, string> => ({ 'open-sandbox-api-key': server.key })

interface Session {
  readonly texts: Json[]
  readonly out: string
  readonly err: string
  readonly code: number
}

/** Runs the whole protocol; `during` may send more once the command has started. */
function session(
  id: string,
  start: object,
  during?: (socket: WebSocket) => void,
  protocols: string[] = [],
): Promise<Session> {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/sandboxes/${id}/exec`, protocols, {
    headers: protocols.length === 0 ? headers() : {},
  })
  return new Promise((resolve, reject) => {
    const texts: Json[] = []
    const out: Record<number, Buffer[]> = { 1: [], 2: [] }
    socket.on('error', reject)
    socket.on('unexpected-response', (_request, response) => {
      let text = ''
      response.on('data', (chunk: Buffer) => (text += chunk.toString()))
      response.on('end', () =>
        reject(Object.assign(new Error(text), { status: response.statusCode, body: JSON.parse(text) })),
      )
    })
    socket.on('open', () => socket.send(JSON.stringify(start)))
    socket.on('message', (data: Buffer, isBinary) => {
      if (isBinary) out[data[0] ?? 0]?.push(data.subarray(1))
      else {
        const message = JSON.parse(data.toString())
        texts.push(message)
        if (message.type === 'started') during?.(socket)
      }
    })
    socket.on('close', (code) =>
      resolve({
        texts,
        out: Buffer.concat(out[1] ?? []).toString(),
        err: Buffer.concat(out[2] ?? []).toString(),
        code,
      }),
    )
  })
}

/** A length of sleep that nothing else on this machine uses, so that its process can be found. */
const freshMark = (): string => `${1_000 + Math.floor(Math.random() * 1e6)}.${process.pid}`

async function alive(mark: string): Promise<boolean> {
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    // A process that ended between the two reads has no command line any more.
    const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    if (line === `sleep\0${mark}\0`) return true
  }
  return false
}

async function bytesOf(tar: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of tar) chunks.push(chunk)
  return Buffer.concat(chunks)
}

const stdin = (text: string): Buffer => Buffer.concat([Buffer.of(0), Buffer.from(text)])

describe('exec to its end', () => {
  const exec = (id: string, body: object) => server.call('POST', `/v1/sandboxes/${id}/exec`, body)

  it('answers both outputs and the exit status', async () => {
    const id = await running()
    const got = await exec(id, { command: 'printf hello; printf oops >&2; exit 3' })
    expect([got.status, got.body]).toEqual([
      200,
      { exitCode: 3, stdout: 'hello', stderr: 'oops', truncated: false, timedOut: false, lost: null },
    ])
  })

  it('feeds standard input, environment and directory, and keeps a time limit', async () => {
    const id = await running()
    expect((await exec(id, { command: ['cat'], stdin: 'zwölf\n' })).body).toMatchObject({ stdout: 'zwölf\n' })
    const shown = await exec(id, { command: 'echo "$A"; pwd', env: { A: 'b' }, workingDir: '/tmp' })
    expect(shown.body.stdout).toBe('b\n/tmp\n')
    const slow = await exec(id, { command: ['sleep', '60'], timeoutSeconds: 0.2 })
    expect(slow.body).toMatchObject({ timedOut: true })
  })

  it('keeps 1 MiB, reads the rest, and says so; bytes that are no text come as base64', async () => {
    const id = await running()
    const flood = await exec(id, { command: `head -c ${3 * 2 ** 20} /dev/zero` })
    expect(flood.body).toMatchObject({ exitCode: 0, truncated: true })
    expect(flood.body.stdout).toHaveLength(2 ** 20)
    expect(flood.body.stdoutEncoding).toBeUndefined()
    const bytes = await exec(id, { command: "printf '\\377\\000'" })
    expect(bytes.body).toMatchObject({
      stdout: Buffer.of(255, 0).toString('base64'),
      stdoutEncoding: 'base64',
      truncated: false,
    })
  })

  it('409 while it does not run, 400 for nonsense', async () => {
    const id = await running()
    for (const [body, path] of [
      [{}, 'command'],
      [{ command: [] }, 'command'],
      [{ command: ['a'], tty: true }, 'tty'],
      [{ command: 'a', env: { 'x y': '' } }, 'env["x y"]'],
    ] as const) {
      const got = await exec(id, body)
      expect([got.status, got.body.code, got.body.details.issues[0].path]).toEqual([
        400,
        'INVALID_REQUEST',
        path,
      ])
    }
    await server.call('POST', `/v1/sandboxes/${id}/stop`)
    const got = await exec(id, { command: ['true'] })
    expect([got.status, got.body.code]).toEqual([409, 'SANDBOX::NOT_RUNNING'])
  })

  it('a program that is not there is not an internal error', async () => {
    const got = await exec(await running(), { command: ['no-such-program'] })
    expect(got.body.code ?? got.body.exitCode).not.toBe('INTERNAL')
    expect(got.status).toBeLessThan(500)
  })

  it('a client that goes away ends the command', async () => {
    const id = await running()
    const mark = freshMark()
    const gone = new AbortController()
    const request = fetch(`${url}/v1/sandboxes/${id}/exec`, {
      method: 'POST',
      headers: { ...headers(), 'content-type': 'application/json' },
      body: JSON.stringify({ command: ['sleep', mark] }),
      signal: gone.signal,
    })
    await expect.poll(() => alive(mark)).toBe(true)
    gone.abort()
    await expect(request).rejects.toThrow()
    await expect.poll(() => alive(mark), { timeout: 15_000 }).toBe(false)
  })
})

describe('exec over a WebSocket', () => {
  it('streams both outputs and ends with the exit status', async () => {
    const got = await session(await running(), {
      type: 'start',
      command: 'printf hello; printf oops >&2; exit 3',
    })
    expect(got).toEqual({
      texts: [{ type: 'started' }, { type: 'exit', exitCode: 3, timedOut: false, lost: null }],
      out: 'hello',
      err: 'oops',
      code: 1000,
    })
  })

  it('takes input, also what was sent right behind the start', async () => {
    const id = await running()
    const got = await session(id, { type: 'start', command: ['cat'], stdin: true }, (socket) => {
      socket.send(stdin('one '))
      socket.send(stdin('two'))
      socket.send('{"type":"eof"}')
    })
    expect([got.out, got.err, got.texts.at(-1).exitCode]).toEqual(['one two', '', 0])
    const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/sandboxes/${id}/exec`, {
      headers: headers(),
    })
    const early = await new Promise<string>((resolve, reject) => {
      let out = ''
      socket.on('error', reject)
      socket.on('open', () => {
        socket.send(JSON.stringify({ type: 'start', command: ['cat'], stdin: true }))
        socket.send(stdin('early'))
        socket.send('{"type":"eof"}')
      })
      socket.on('message', (data: Buffer, isBinary) => {
        if (isBinary && data[0] === 1) out += data.subarray(1).toString()
      })
      socket.on('close', () => resolve(out))
    })
    expect(early).toBe('early')
  })

  it('carries many megabytes in both directions', async () => {
    const big = 'x'.repeat(2 ** 20)
    const got = await session(await running(), { type: 'start', command: ['cat'], stdin: true }, (socket) => {
      for (let i = 0; i < 8; i++) socket.send(stdin(big))
      socket.send('{"type":"eof"}')
    })
    expect(got.out).toHaveLength(8 * 2 ** 20)
  })

  it('passes signals on to the whole group', async () => {
    const id = await running()
    const got = await session(
      id,
      { type: 'start', command: 'trap "echo caught; exit 5" INT; echo up; while :; do sleep 0.1; done' },
      (socket) => setTimeout(() => socket.send('{"type":"signal","signal":"INT"}'), 300),
    )
    expect([got.out, got.texts.at(-1)]).toMatchObject(['up\ncaught\n', { type: 'exit', exitCode: 5 }])
  })

  it('a bad start and a bad frame are told as errors', async () => {
    const id = await running()
    const bad = await session(id, { type: 'begin' })
    expect(bad.texts).toMatchObject([{ type: 'error', error: { code: 'INVALID_REQUEST' } }])
    expect(bad.code).toBe(1000)
    const frame = await session(id, { type: 'start', command: ['sleep', '60'] }, (socket) =>
      socket.send(Buffer.of(9)),
    )
    expect(frame.texts.at(-1)).toMatchObject({ type: 'error', error: { code: 'INVALID_REQUEST' } })
  })

  it('is refused as HTTP before the upgrade: 401, 404, 409, and 400 without an upgrade', async () => {
    const id = await running()
    await expect(session('nope', {})).rejects.toMatchObject({
      status: 404,
      body: { code: 'SANDBOX::NOT_FOUND' },
    })
    await expect(session(id, {}, undefined, ['holdfast.v1', 'holdfast.key.wrong'])).rejects.toMatchObject({
      status: 401,
    })
    await server.call('POST', `/v1/sandboxes/${id}/stop`)
    await expect(session(id, {})).rejects.toMatchObject({
      status: 409,
      body: { code: 'SANDBOX::NOT_RUNNING' },
    })
    const other = await running()
    expect((await server.call('GET', `/v1/sandboxes/${other}/exec`)).status).toBe(400)
  })

  it('takes the key as a subprotocol, as browsers must send it, and echoes only the other one', async () => {
    const id = await running()
    const got = await session(id, { type: 'start', command: ['true'] }, undefined, [
      'holdfast.v1',
      `holdfast.key.${server.key}`,
    ])
    expect(got.texts.at(-1)).toMatchObject({ type: 'exit', exitCode: 0 })
    expect(server.logs.join('\n')).not.toContain(server.key)
  })

  it('a client that goes away ends the command', async () => {
    const id = await running()
    const mark = freshMark()
    await session(id, { type: 'start', command: ['sleep', mark] }, (socket) => socket.terminate())
    await expect.poll(() => alive(mark), { timeout: 15_000 }).toBe(false)
  })

  it('a server that stops says so and ends the command', async () => {
    const id = await running()
    const ended = session(id, { type: 'start', command: ['sleep', '60'] }, () => void server.api.close())
    expect((await ended).texts.at(-1)).toMatchObject({
      type: 'error',
      error: { code: 'SERVICE_UNAVAILABLE' },
    })
  })
})

describe('output and figures', () => {
  it('logs as NDJSON, raw, by tail and since; also of a stopped one', async () => {
    const id = await running(['sim', 'say', 'one\ntwo\n', 'bad\n', 'then', 'run'])
    const lines = (await server.call('GET', `/v1/sandboxes/${id}/logs`)).body
      .trim()
      .split('\n')
      .map((l: string) => JSON.parse(l))
    expect(lines.map((l: Json) => [l.stream, Buffer.from(l.data, 'base64').toString()])).toContainEqual([
      'stderr',
      'bad\n',
    ])
    expect(Date.parse(lines[0].time)).toBeGreaterThan(0)
    const plain = await server.call('GET', `/v1/sandboxes/${id}/logs`, undefined, { accept: 'text/plain' })
    expect([plain.headers['content-type'], plain.body]).toEqual([
      'text/plain; charset=utf-8',
      'one\ntwo\nbad\n',
    ])
    expect((await server.call('GET', `/v1/sandboxes/${id}/logs?since=2999-01-01T00:00:00Z`)).body).toBeNull()
    expect(
      (await server.call('GET', `/v1/sandboxes/${id}/logs?since=whenever`)).body.details.issues[0].path,
    ).toBe('since')
    await server.call('POST', `/v1/sandboxes/${id}/stop`)
    await server.phase(id, 'Stopped')
    expect(
      (await server.call('GET', `/v1/sandboxes/${id}/logs`, undefined, { accept: 'text/plain' })).body,
    ).toContain('one')
  })

  it('follows until the client leaves', async () => {
    const id = await running(['sim', 'ticks'])
    const gone = new AbortController()
    const response = await fetch(`${url}/v1/sandboxes/${id}/logs?follow=true`, {
      headers: headers(),
      signal: gone.signal,
    })
    let seen = 0
    for await (const chunk of response.body ?? []) {
      seen += Buffer.from(chunk).toString().split('\n').length - 1
      if (seen >= 3) break
    }
    gone.abort()
    expect(seen).toBeGreaterThanOrEqual(3)
  })

  it('stats', async () => {
    const got = await server.call('GET', `/v1/sandboxes/${await running()}/stats`)
    expect(got.status).toBe(200)
    expect(Object.keys(got.body).toSorted((a, b) => a.localeCompare(b))).toEqual([
      'at',
      'cpuMs',
      'memoryBytes',
      'memoryLimitBytes',
      'pids',
    ])
  })
})

describe('archives', () => {
  it('go in and come out, also of a stopped one', async () => {
    const id = await running()
    const tar = pack()
    tar.entry({ name: 'note.txt' }, 'remember')
    tar.finalize()
    const body = await bytesOf(tar as AsyncIterable<Buffer>)
    const path = encodeURIComponent('/sandbox')
    const put = await fetch(`${url}/v1/sandboxes/${id}/archive?path=${path}`, {
      method: 'PUT',
      headers: { ...headers(), 'content-type': 'application/x-tar' },
      body,
    })
    expect([put.status, await put.text()]).toEqual([204, ''])
    await server.call('POST', `/v1/sandboxes/${id}/stop`)
    await server.phase(id, 'Stopped')
    const got = await fetch(
      `${url}/v1/sandboxes/${id}/archive?path=${encodeURIComponent('/sandbox/note.txt')}`,
      { headers: headers() },
    )
    expect(got.headers.get('content-type')).toBe('application/x-tar')
    const entries: Record<string, string> = {}
    const reader = extract()
    reader.end(Buffer.from(await got.arrayBuffer()))
    for await (const entry of reader) {
      const chunks: Buffer[] = []
      for await (const chunk of entry as AsyncIterable<Buffer>) chunks.push(chunk)
      entries[entry.header.name] = Buffer.concat(chunks).toString()
    }
    expect(entries).toEqual({ 'note.txt': 'remember' })
  })

  it('a missing path is 404, a relative one 400, a wrong type 415, and a large body needs no JSON limit', async () => {
    const id = await running()
    expect((await server.call('GET', `/v1/sandboxes/${id}/archive?path=/nope`)).body.code).toBe(
      'PATH_NOT_FOUND',
    )
    expect((await server.call('GET', `/v1/sandboxes/${id}/archive?path=nope`)).status).toBe(400)
    expect((await server.call('GET', `/v1/sandboxes/${id}/archive`)).status).toBe(400)
    const put = (type: string, body: Buffer) =>
      fetch(`${url}/v1/sandboxes/${id}/archive?path=/sandbox`, {
        method: 'PUT',
        headers: { ...headers(), 'content-type': type },
        body,
      })
    expect((await put('application/zip', Buffer.from('x'))).status).toBe(415)
    const tar = pack()
    tar.entry({ name: 'big' }, Buffer.alloc(8 * 2 ** 20, 1))
    tar.finalize()
    expect((await put('application/x-tar', await bytesOf(tar as AsyncIterable<Buffer>))).status).toBe(204)
  })
})

describe('explain and audit', () => {
  it('tell a lost one, what survives, and how to go on; recover keeps the volume', async () => {
    const id = await running()
    const before = (await server.call('GET', `/v1/sandboxes/${id}`)).body
    const calm = (await server.call('GET', `/v1/sandboxes/${id}/explain`)).body
    expect(calm).toMatchObject({
      wanted: { state: 'running', reason: 'create', generation: 1 },
      observed: { known: true, instance: { state: 'running', paused: false } },
      difference: '',
      lastError: null,
      openSteps: [],
      engine: { ok: true, error: null },
    })
    expect((await server.call('GET', '/v1/audit')).body).toMatchObject({
      ok: true,
      held: null,
      findings: [],
      counts: { rows: 1, instances: 1, volumes: 1, openSteps: 0 },
    })
    server.behind.remove(before.instance.name)
    await server.phase(id, 'Lost')
    const lost = (await server.call('GET', `/v1/sandboxes/${id}/explain`)).body
    expect(lost.observed).toMatchObject({ known: true, instance: null })
    expect(lost.survives).toEqual([{ claimName: 'workspace', uid: before.volumes[0].uid, state: 'ready' }])
    expect(lost.suggestions[0]).toBe(`holdfast recover ${id}`)
    const exec = await server.call('POST', `/v1/sandboxes/${id}/exec`, { command: ['true'] })
    expect(exec.body.code).toBe('SANDBOX::NOT_RUNNING')
    expect((await server.call('POST', `/v1/sandboxes/${id}/recover`)).status).toBe(202)
    await server.phase(id, 'Running')
    const after = (await server.call('GET', `/v1/sandboxes/${id}`)).body
    expect(after.instance.number).toBe(2)
    expect(after.volumes).toEqual(before.volumes)
    await server.call('DELETE', `/v1/sandboxes/${id}`)
    await server.phase(id, 'Terminated')
    await expect.poll(() => server.world.volumes.size).toBe(0)
    expect((await server.call('GET', '/v1/audit')).body).toMatchObject({
      ok: true,
      counts: { rows: 0, instances: 0, volumes: 0, openSteps: 0 },
    })
  })
})

describe('events', () => {
  it('as JSON, filtered and in order', async () => {
    const id = await running()
    const all = (await server.call('GET', '/v1/events?limit=1000')).body.items
    expect(all.map((e: Json) => e.seq)).toEqual(all.map((_: unknown, i: number) => i + 1))
    const mine = (await server.call('GET', `/v1/events?sandbox=${id}&limit=1`)).body.items
    expect(mine).toHaveLength(1)
    expect(mine[0].id).toBe(id)
    const later = (await server.call('GET', `/v1/events?after=${all[0].seq}&limit=1`)).body.items
    expect(later[0].seq).toBe(all[0].seq + 1)
    expect((await server.call('GET', '/v1/events?sandbox=a&volume=b')).status).toBe(400)
    expect((await server.call('GET', '/v1/events?limit=0')).status).toBe(400)
  })

  it('as a stream that continues where a client left off, without gap or repetition', async () => {
    const id = await running()
    const follow = async (last: string | null, until: (reason: string) => boolean): Promise<Json[]> => {
      const gone = new AbortController()
      const response = await fetch(`${url}/v1/sandboxes/${id}/events?after=0`, {
        headers: {
          ...headers(),
          accept: 'text/event-stream',
          ...(last === null ? {} : { 'last-event-id': last }),
        },
        signal: gone.signal,
      })
      expect(response.headers.get('content-type')).toBe('text/event-stream')
      const seen: Json[] = []
      let rest = ''
      for await (const chunk of response.body ?? []) {
        const parts = (rest + Buffer.from(chunk).toString()).split('\n\n')
        rest = parts.pop() ?? ''
        for (const part of parts) {
          const data = part.split('\n').find((l) => l.startsWith('data: '))
          if (data === undefined) continue
          const event = JSON.parse(data.slice(6))
          expect(part).toContain(`id: ${event.seq}\n`)
          seen.push(event)
        }
        if (seen.some((e) => until(e.reason))) break
      }
      gone.abort()
      return seen
    }
    const first = await follow(null, (reason) => reason === 'Running')
    const waiting = follow(String(first.at(-1).seq), (reason) => reason === 'StopRequested')
    await server.call('POST', `/v1/sandboxes/${id}/stop`)
    const second = await waiting
    expect(second[0].seq).toBeGreaterThan(first.at(-1).seq)
    const all = (await server.call('GET', `/v1/sandboxes/${id}/events?after=0`)).body.items.map(
      (e: Json) => e.seq,
    )
    const got = [...first, ...second].map((e) => e.seq)
    expect(got).toEqual(all.slice(0, got.length))
  })

  it('a bad Last-Event-ID is 400, and an open stream does not hold up a stop', async () => {
    const bad = await server.call('GET', '/v1/events', undefined, {
      accept: 'text/event-stream',
      'last-event-id': 'x',
    })
    expect(bad.status).toBe(400)
    const response = await fetch(`${url}/v1/events`, {
      headers: { ...headers(), accept: 'text/event-stream' },
    })
    const ended = response.text().then(
      () => true,
      () => true,
    )
    await server.api.close()
    expect(await ended).toBe(true)
  })
})
