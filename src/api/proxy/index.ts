import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream'
import { fail, HoldfastError } from '../../model/errors.ts'
import { EngineError } from '../../model/facts.ts'
import { bound, inUse } from '../address.ts'
import type { Context } from '../context.ts'
import type { Address } from '../deps.ts'
import { fromEngine, rawErrorResponse } from '../errors.ts'
import { bearer } from '../guard.ts'
import { requestHeaders, responseHeaders } from './headers.ts'
import { admit, readTarget, type Admission, type Asked } from './target.ts'

/** How long a connection into a sandbox may take, milliseconds. */
const DIAL_LIMIT_MS = 10_000
/** How long a sandbox may take to begin its answer, milliseconds: language models think for minutes. */
const ANSWER_LIMIT_MS = 600_000
/** How long a client may take to send its headers, milliseconds. */
const HEADERS_LIMIT_MS = 30_000
/** How long open exchanges may go on after a close was asked for, milliseconds. */
const DRAIN_MS = 2_000

export interface Proxy {
  readonly server: Server
  /** Throws `ADDRESS_IN_USE`. */
  listen(): Promise<Address>
  close(): Promise<void>
}

/** What sandboxes serve, on an origin that is neither the API's nor, in the host form, each other's (DESIGN §6). */
export function createProxy(ctx: Context): Proxy {
  const upgraded = new Set<Duplex>()
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    exchange(ctx, request, response).catch((error: unknown) => answerError(ctx, response, error))
  }
  const server =
    ctx.config.tls === undefined ? createServer(onRequest) : createTlsServer(ctx.config.tls, onRequest)
  server.headersTimeout = HEADERS_LIMIT_MS
  // Uploads and long polls take what they take.
  server.requestTimeout = 0
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    upgraded.add(socket)
    socket.once('close', () => upgraded.delete(socket))
    socket.on('error', () => socket.destroy())
    upgrade(ctx, request, socket, head).catch((error: unknown) => {
      const known = describe(ctx, error)
      socket.end(rawErrorResponse(statusOf(known), known.toBody()))
    })
  })
  return {
    server,
    listen: () =>
      new Promise((resolve, reject) => {
        const asked = ctx.config.proxyListen
        const onError = (error: Error): void => reject(inUse(error, asked) as Error)
        server.once('error', onError)
        server.listen(asked.port, asked.host, () => {
          server.off('error', onError)
          resolve(bound(asked, server.address()))
        })
      }),
    close: () =>
      new Promise((resolve) => {
        if (!server.listening) {
          resolve()
          return
        }
        const cancel = ctx.clock.after(DRAIN_MS, () => server.closeAllConnections())
        server.close(() => {
          cancel()
          resolve()
        })
        server.closeIdleConnections()
        for (const socket of upgraded) socket.destroy()
      }),
  }
}

/** 409 is for wishes; of something that serves, clients expect 503. */
function statusOf(error: HoldfastError): number {
  return error.code === 'SANDBOX::NOT_RUNNING' ? 503 : error.status
}

function describe(ctx: Context, error: unknown): HoldfastError {
  if (error instanceof HoldfastError) return error
  const id = ctx.ids.next()
  ctx.logger.error({ err: error, requestId: id }, 'proxied request failed')
  return fail('INTERNAL', { requestId: id })
}

function answerError(ctx: Context, response: ServerResponse, error: unknown): void {
  const known = describe(ctx, error)
  if (response.headersSent || response.destroyed) {
    response.destroy()
    return
  }
  const body = JSON.stringify(known.toBody())
  // What is left of the request's body is not read.
  response.shouldKeepAlive = false
  response
    .writeHead(statusOf(known), {
      'Content-Type': 'application/json; charset=utf-8',
      'Content-Length': Buffer.byteLength(body),
      'Cache-Control': 'no-store',
    })
    .end(body)
}

function asked(ctx: Context, request: IncomingMessage): Asked {
  const target = readTarget(request.headers.host, request.url ?? '', ctx.config.proxyDomain ?? 'localhost')
  if (target === null) {
    throw fail('ROUTE_NOT_FOUND', {
      method: request.method ?? '',
      path: (request.url ?? '').split('?')[0] ?? '',
    })
  }
  return target
}

/** A connection to the port. The instance is named by the engine's id, so a reused address cannot be met. */
async function dial(ctx: Context, target: Asked, signal: AbortSignal): Promise<Duplex> {
  const { sandbox, port } = target
  const record = await ctx.store.read((tx) => tx.sandbox(sandbox))
  if (record === null || record.deletedAt !== null) throw fail('SANDBOX::NOT_FOUND', { id: sandbox })
  const engineId = record.instance?.engineId ?? null
  if (record.status.phase !== 'Running' || engineId === null) {
    throw fail('SANDBOX::NOT_RUNNING', { id: sandbox, state: record.status.phase })
  }
  const engine = ctx.engines.get(record.engine)
  if (engine === null)
    throw fail('ENGINE_UNREACHABLE', { engine: record.engine, detail: 'it is not configured' })
  try {
    return await engine.dial(engineId, port, { limitMs: DIAL_LIMIT_MS, signal })
  } catch (error) {
    if (!(error instanceof EngineError)) throw error
    if (error.kind === 'timeout')
      throw fail('TIMEOUT', {
        what: `Connecting to port ${port} of sandbox ${sandbox}`,
        afterMs: DIAL_LIMIT_MS,
      })
    if (error.kind === 'failed') throw fail('PORT_REFUSED', { id: sandbox, port, detail: error.message })
    if (error.kind === 'not-found' || error.kind === 'conflict')
      throw fail('SANDBOX::NOT_RUNNING', { id: sandbox, state: 'not running' })
    throw fromEngine(error, engine.id, 'reach ports')
  }
}

async function outgoingHeaders(
  ctx: Context,
  request: IncomingMessage,
  target: Asked,
  upgrades: boolean,
): Promise<string[]> {
  const token = bearer(request.headers)
  const host = request.headers.host ?? ''
  const prefix = target.form === 'path' ? `/sandboxes/${target.sandbox}/proxy/${target.port}` : ''
  return requestHeaders(request.rawHeaders, {
    form: target.form,
    dropAuthorization: token !== null && (await ctx.keys.identify(token)) !== null,
    upgrade: upgrades,
    framing: upgrades ? null : framingOf(request),
    set: {
      // In the path form the name is ours, which many servers would refuse.
      Host: target.form === 'host' ? host : `localhost:${target.port}`,
      'X-Forwarded-For': request.socket.remoteAddress ?? '',
      'X-Forwarded-Host': host,
      'X-Forwarded-Proto': ctx.config.tls === undefined ? 'http' : 'https',
      ...(prefix === '' ? {} : { 'X-Forwarded-Prefix': prefix }),
    },
  })
}

function redirect(response: ServerResponse, to: Extract<Admission, { kind: 'redirect' }>): void {
  response
    .writeHead(303, {
      Location: to.location,
      'Set-Cookie': to.cookie,
      'Cache-Control': 'no-store',
      'Referrer-Policy': 'no-referrer',
      'Content-Length': '0',
    })
    .end()
}

/** The answer's head; rejects when the sandbox hangs up, errs or takes too long. */
function send(
  ctx: Context,
  request: IncomingMessage,
  target: Asked,
  path: string,
  headers: string[],
  connection: Duplex,
): Promise<{ answer: IncomingMessage; tunnel: Duplex | null; head: Buffer }> {
  return new Promise((resolve, reject) => {
    const { sandbox: id, port } = target
    const outgoing = httpRequest({
      method: request.method,
      path,
      headers,
      setHost: false,
      createConnection: () => connection,
    })
    const cancel = ctx.clock.after(ANSWER_LIMIT_MS, () =>
      outgoing.destroy(
        fail('TIMEOUT', { what: `The answer of port ${port} of sandbox ${id}`, afterMs: ANSWER_LIMIT_MS }),
      ),
    )
    outgoing.once('response', (answer) => {
      cancel()
      resolve({ answer, tunnel: null, head: Buffer.alloc(0) })
    })
    outgoing.once('upgrade', (answer, tunnel: Duplex, head) => {
      cancel()
      resolve({ answer, tunnel, head })
    })
    // Interim answers (100, 103) are the connection's own affair; the final one counts.
    outgoing.on('error', (error) => {
      cancel()
      reject(
        error instanceof HoldfastError
          ? error
          : fail('PORT_REFUSED', { id, port, detail: `it hung up (${error.message})` }),
      )
    })
    if (request.headers.upgrade !== undefined || framingOf(request) === null) outgoing.end()
    else
      pipeline(request, outgoing, () => {
        // An upload that breaks off ends the exchange through the events above.
      })
  })
}

function framingOf(request: IncomingMessage): 'chunked' | 'length' | null {
  if (request.headers['transfer-encoding'] !== undefined) return 'chunked'
  return request.headers['content-length'] === undefined ? null : 'length'
}

/** One request and its answer, both streamed. */
async function exchange(ctx: Context, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const target = asked(ctx, request)
  const admission = await admit(ctx, request, target)
  if (admission.kind === 'redirect') {
    redirect(response, admission)
    return
  }
  const gone = new AbortController()
  response.once('close', () => gone.abort(new Error('the client went away')))
  const headers = await outgoingHeaders(ctx, request, target, false)
  const connection = await dial(ctx, target, gone.signal)
  response.once('close', () => connection.destroy())
  if (response.destroyed) {
    connection.destroy()
    return
  }
  const { answer } = await send(ctx, request, target, admission.path, headers, connection)
  response.writeHead(
    answer.statusCode ?? 502,
    answer.statusMessage,
    responseHeaders(answer.rawHeaders, target.form, false),
  )
  // Event streams must not wait for their first byte of body.
  response.flushHeaders()
  pipeline(answer, response, () => connection.destroy())
}

/** A WebSocket: only what both ends agreed on by a 101 becomes a tunnel, since behind one nothing is stripped any more. */
async function upgrade(ctx: Context, request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
  if ((request.headers.upgrade ?? '').toLowerCase() !== 'websocket') {
    throw fail('INVALID_REQUEST', { issues: [{ path: 'Upgrade', message: 'only websocket is passed on' }] })
  }
  const target = asked(ctx, request)
  const admission = await admit(ctx, request, target)
  if (admission.kind === 'redirect') throw fail('INVALID_API_KEY', {})
  const gone = new AbortController()
  socket.once('close', () => gone.abort(new Error('the client went away')))
  const headers = await outgoingHeaders(ctx, request, target, true)
  const connection = await dial(ctx, target, gone.signal)
  socket.once('close', () => connection.destroy())
  if (socket.destroyed) {
    connection.destroy()
    return
  }
  const {
    answer,
    tunnel,
    head: early,
  } = await send(ctx, request, target, admission.path, headers, connection)
  const lines = headLines(answer, target.form, tunnel !== null)
  if (tunnel === null) {
    // Refused: its answer is passed on, and the connection ends with it.
    socket.write(lines)
    pipeline(answer, socket, () => connection.destroy())
    return
  }
  socket.write(lines)
  if (early.length > 0) socket.write(early)
  if (head.length > 0) tunnel.write(head)
  join(socket, tunnel)
}

/** Both directions until either end is gone; pipes carry the back-pressure. */
function join(a: Duplex, b: Duplex): void {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.on('error', () => from.destroy())
    from.once('close', () => to.destroy())
    from.pipe(to)
  }
}

function headLines(answer: IncomingMessage, form: Asked['form'], upgraded: boolean): string {
  const status = answer.statusCode ?? 502
  const fields = responseHeaders(answer.rawHeaders, form, upgraded)
  if (!upgraded) {
    fields.push('Connection', 'close')
  }
  let out = `HTTP/1.1 ${status} ${answer.statusMessage ?? STATUS_CODES[status] ?? ''}\r\n`
  for (let i = 0; i + 1 < fields.length; i += 2) out += `${fields[i]}: ${fields[i + 1]}\r\n`
  return `${out}\r\n`
}
