import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex, Readable } from 'node:stream'
import type { Clock } from '../../model/clock.ts'
import { EngineError } from '../../model/facts.ts'
import type { Call } from '../engine.ts'
import type { Connection } from './connection.ts'
import { refusalError, type Refusal } from './failure.ts'
import { exchange, type HttpReply, type HttpRequest, readText } from './http.ts'
import { chooseVersion, type VersionAnswer, type VersionRange } from './version.ts'

export type Query = Readonly<Record<string, string | number | boolean | undefined>>

export interface ApiRequest {
  /** In words, for errors: `starting instance x`. */
  readonly what: string
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE'
  /** Below the version, as `/containers/json`. */
  readonly path: string
  readonly query?: Query
  readonly json?: unknown
  readonly tar?: Readable
  readonly mutation?: boolean
  readonly upgrade?: boolean
  readonly endless?: boolean
  readonly headers?: Readonly<Record<string, string>>
  readonly call: Call
}

/** An answer whose status the caller judges: `ok`, or a refusal in the engine's words. */
export type Answer =
  | { readonly ok: true; readonly status: number; readonly json: unknown }
  | { readonly ok: false; readonly refusal: Refusal; readonly error: EngineError }

export interface Stream {
  readonly headers: IncomingHttpHeaders
  readonly body: Readable
}

/** The engine's HTTP API at one endpoint, its version negotiated. Everything rejects with `EngineError` only. */
export interface Api {
  readonly endpoint: string
  readonly connection: Connection
  readonly clock: Clock
  /** Negotiates when that has not happened since the last loss of contact. */
  version(call: Call): Promise<Negotiated>
  /** Reads the whole answer, whatever its status. */
  ask(request: ApiRequest): Promise<Answer>
  /** Reads the whole answer and rejects unless it is a success. */
  get<T>(request: ApiRequest): Promise<T>
  /** An answer that is read as it comes. Rejects unless it is a success. */
  stream(request: ApiRequest): Promise<Stream>
  /** A raw two-way stream. */
  hijack(request: ApiRequest): Promise<Duplex>
  close(): Promise<void>
}

export interface Negotiated {
  readonly api: string
  readonly engine: VersionAnswer
}

const VERSION_REFUSED = /client version \S+ is too (old|new)/i

export function createApi(connection: Connection, clock: Clock, known: VersionRange): Api {
  let negotiated: Negotiated | null = null

  const send = async (request: HttpRequest): Promise<HttpReply> => {
    try {
      return await exchange(connection.dispatcher, clock, request)
    } catch (error) {
      // Whoever answers next may be another version of the engine.
      if (error instanceof EngineError && error.kind === 'unreachable') negotiated = null
      throw explained(connection, error)
    }
  }

  const version = async (call: Call): Promise<Negotiated> => {
    if (negotiated !== null) return negotiated
    const what = `asking the engine at ${connection.label} for its version`
    const reply = await send({ what, method: 'GET', path: '/version', mutation: false, call })
    const answer = await readAnswer(what, reply, false)
    if (!answer.ok) throw answer.error
    negotiated = chooseVersion(answer.json, known, connection.label)
    return negotiated
  }

  const open = async (request: ApiRequest): Promise<HttpReply> => {
    const rest = budget(clock, request.call)
    const { api } = await version(rest())
    return send({
      what: request.what,
      method: request.method,
      path: `/v${api}${request.path}${queryText(request.query)}`,
      headers: { ...contentType(request), ...request.headers },
      ...bodyOf(request),
      mutation: request.mutation ?? false,
      upgrade: request.upgrade ?? false,
      endless: request.endless ?? false,
      call: rest(),
    })
  }

  const ask = async (request: ApiRequest): Promise<Answer> => {
    const answer = await readAnswer(request.what, await open(request), request.mutation ?? false)
    // The engine was exchanged behind an open connection: ask again in a version that it speaks. A refused version had no effect.
    if (answer.ok || negotiated === null || !VERSION_REFUSED.test(answer.refusal.message ?? '')) return answer
    negotiated = null
    if (request.tar !== undefined) return answer
    return readAnswer(request.what, await open(request), request.mutation ?? false)
  }

  return {
    endpoint: connection.label,
    connection,
    clock,
    version,
    ask,
    async get<T>(request: ApiRequest) {
      const answer = await ask(request)
      if (!answer.ok) throw answer.error
      return answer.json as T
    },
    async stream(request) {
      const reply = await open(request)
      if (reply.status < 300) return { headers: reply.headers, body: reply.body }
      const answer = await readAnswer(request.what, reply, request.mutation ?? false)
      throw answer.ok ? unexpected(request.what, `HTTP ${reply.status}`) : answer.error
    },
    async hijack(request) {
      const reply = await open({ ...request, upgrade: true })
      if (reply.socket !== null) return reply.socket
      const answer = await readAnswer(request.what, reply, true)
      throw answer.ok ? unexpected(request.what, 'the connection was not upgraded') : answer.error
    },
    close: () => connection.close(),
  }
}

/** An answer that does not follow the API: nothing can be concluded from it. */
export function unexpected(what: string, detail: string): EngineError {
  return new EngineError('failed', 'unknown', `${what}: the engine's answer is not understood: ${detail}`)
}

/** Calls of one operation share its limit: each call of the result has what is left of it. */
export function budget(clock: Clock, call: Call): () => Call {
  const end = clock.monotonic() + call.limitMs
  return () => ({ ...call, limitMs: Math.max(1, end - clock.monotonic()) })
}

function explained(connection: Connection, error: unknown): unknown {
  const note = connection.note()
  if (!(error instanceof EngineError) || error.kind !== 'unreachable' || note === null) return error
  return new EngineError(error.kind, error.effect, `${error.message} (${note})`, { cause: error })
}

function contentType(request: ApiRequest): Record<string, string> {
  if (request.tar !== undefined) return { 'content-type': 'application/x-tar' }
  return request.json === undefined ? {} : { 'content-type': 'application/json' }
}

function bodyOf(request: ApiRequest): { body?: string | Readable } {
  if (request.tar !== undefined) return { body: request.tar }
  return request.json === undefined ? {} : { body: JSON.stringify(request.json) }
}

function queryText(query: Query | undefined): string {
  if (query === undefined) return ''
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined)
  if (pairs.length === 0) return ''
  return `?${new URLSearchParams(pairs.map(([key, value]): [string, string] => [key, String(value)])).toString()}`
}

async function readAnswer(what: string, reply: HttpReply, mutation: boolean): Promise<Answer> {
  const text = await readText(what, reply.body)
  const json = parse(text, String(reply.headers['content-type'] ?? ''))
  // 304: it already is as asked for.
  if (reply.status < 300 || reply.status === 304) {
    if (text !== '' && json === undefined) throw unexpected(what, 'it is not JSON')
    return { ok: true, status: reply.status, json }
  }
  const message = typeof json === 'object' && json !== null && 'message' in json ? json.message : null
  const refusal = { status: reply.status, message: typeof message === 'string' ? message : null }
  return { ok: false, refusal, error: refusalError(what, refusal, mutation) }
}

function parse(text: string, type: string): unknown {
  if (!type.startsWith('application/json')) return undefined
  try {
    return JSON.parse(text) as unknown
  } catch {
    // Not JSON although it says so: the caller treats it as an answer that is not the engine's own.
    return undefined
  }
}
