import createFetchClient from 'openapi-fetch'
import { ApiError, clientError, errorFromAnswer } from './errors.ts'
import type { ExecOptions, ExecSession } from './exec.ts'
import { followEvents, type EventQuery } from './follow.ts'
import type { paths } from './generated.ts'
import type { LogLine } from './streams.ts'
import { createTransport } from './transport.ts'
import { query } from './query.ts'
import type {
  Audit,
  CreateSandbox,
  CreateVolume,
  CreatedSandbox,
  Endpoint,
  EngineInfo,
  Event,
  ExecRequest,
  ExecResult,
  Explanation,
  Hold,
  Page,
  PortLink,
  Recovery,
  Sandbox,
  ServerInfo,
  Stats,
  UpdateSandbox,
  Volume,
} from './types.ts'

export interface ClientOptions {
  /** Scheme, host and port, as `http://127.0.0.1:8080`. */
  readonly baseUrl: string
  readonly apiKey?: string | undefined
  readonly fetch?: (request: Request) => Promise<Response>
  /** Limit of a request whose answer is read whole, and of the head of a stream; default 30 000 ms. */
  readonly requestLimitMs?: number
  /** How long what is safe to repeat is repeated after a lost connection; default 5 000 ms. */
  readonly retryLimitMs?: number
  /** Milliseconds that only grow; for tests. */
  readonly now?: () => number
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>
  /** Makes Idempotency-Keys; for tests. */
  readonly newKey?: () => string
}

export interface ListQuery {
  readonly state?: readonly string[]
  /** All of these must hold. */
  readonly metadata?: Readonly<Record<string, string>>
  readonly includeDeleted?: boolean
}

export interface LogQuery {
  readonly follow?: boolean
  /** RFC 3339, or seconds since the epoch. */
  readonly since?: string
  readonly tail?: number
  readonly signal?: AbortSignal
}

export interface IntentOptions {
  /** Given by a caller who repeats over its own restarts; else a new one per call. */
  readonly idempotencyKey?: string
}

type Intent = (id: string, options?: IntentOptions) => Promise<void>

/** Page size of the calls that walk over everything; the largest the server takes. */
const WALK_PAGE_SIZE = 200
/** Events read at once by `events.list`. */
const EVENT_PAGE_SIZE = 500

export interface Client {
  readonly baseUrl: string
  readonly sandboxes: {
    create(body: CreateSandbox, options?: IntentOptions): Promise<CreatedSandbox>
    page(query: ListQuery & { page?: number; pageSize?: number }): Promise<Page<Sandbox>>
    /** Every page. */
    list(query?: ListQuery): Promise<Sandbox[]>
    get(id: string, options?: { includeDeleted?: boolean }): Promise<Sandbox>
    /** The id that a name, an id or a unique beginning of one stands for. */
    resolve(ref: string): Promise<string>
    remove(id: string): Promise<void>
    update(id: string, change: UpdateSandbox): Promise<Sandbox>
    /** RFC 7396: null removes a key. */
    patchMetadata(id: string, change: Readonly<Record<string, string | null>>): Promise<Sandbox>
    start: Intent
    stop: Intent
    restart: Intent
    pause: Intent
    resume: Intent
    recover: Intent
    renew(id: string, expiresAt: string): Promise<{ expiresAt: string }>
    endpoint(
      id: string,
      port: number,
      options?: { useServerProxy?: boolean; expires?: number },
    ): Promise<Endpoint>
    link(id: string, port: number, expiresInSeconds?: number): Promise<PortLink>
    explain(id: string): Promise<Explanation>
    stats(id: string): Promise<Stats>
    /** Not repeated and not reconnected: a caller that follows over restarts asks again with `since`. */
    logs(id: string, query?: LogQuery): AsyncGenerator<LogLine>
    /** Runs a command and collects up to 1 MiB of each output. Never repeated. */
    exec(id: string, request: ExecRequest & { stdin?: string }): Promise<ExecResult>
    /** Runs a command with its streams; Node only. */
    openExec(id: string, options: ExecOptions): Promise<ExecSession>
    /** A tar stream of `path`; its base name is the first entry. */
    download(id: string, path: string, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>>
    /** Unpacks a tar stream into the directory `path`, which must exist. Never repeated. */
    upload(id: string, path: string, tar: ReadableStream<Uint8Array>, signal?: AbortSignal): Promise<void>
  }
  readonly volumes: {
    create(body: CreateVolume, options?: IntentOptions): Promise<Volume>
    list(query?: { includeRemoved?: boolean }): Promise<Volume[]>
    /** By uid or claim name. */
    get(ref: string): Promise<Volume>
    /** Records the purge: from then on the data goes as soon as nothing mounts it. */
    remove(ref: string): Promise<{ uid: string; state: string }>
  }
  readonly events: {
    list(query?: EventQuery): AsyncGenerator<Event>
    /** Follows until aborted; reconnects after the last event seen, so that none is missed or told twice. */
    follow(query?: EventQuery & { signal?: AbortSignal }): AsyncGenerator<Event>
  }
  audit(): Promise<Audit>
  /** What is held after a restore or a rebuild, and what is not as it should be in the store. */
  recovery(): Promise<Recovery>
  /** Ends the hold; null when nothing held. */
  confirmRecovery(): Promise<{ lifted: Hold | null }>
  engines(): Promise<EngineInfo[]>
  info(): Promise<ServerInfo>
  health(): Promise<{ status: string }>
}

const sleepMs = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer)
      reject(signal.reason as Error)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', onAbort)
      resolve()
    }, ms)
    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort, { once: true })
  })

interface Outcome<T> {
  readonly data?: T
  readonly error?: unknown
  readonly response: Response
}

/** The data of an answer, or its error thrown. */
async function must<T>(call: Promise<Outcome<T>>): Promise<T> {
  const outcome = await call.catch((error: unknown): never => {
    // A 2xx whose body is not JSON did not come from a Holdfast server.
    if (!(error instanceof SyntaxError)) throw error
    throw new ApiError({
      code: 'BAD_ANSWER',
      status: 502,
      message: 'What answers there is not a Holdfast server.',
      cause: error,
    })
  })
  const { response } = outcome
  if (!response.ok)
    throw errorFromAnswer(response.status, outcome.error, response.headers.get('x-request-id'))
  return outcome.data as T
}

/** `k=v&k2=v2`, as the list filter takes it. */
export function metadataFilter(metadata: Readonly<Record<string, string>>): string {
  return new URLSearchParams(metadata).toString()
}

async function walk<T>(page: (n: number) => Promise<Page<T>>): Promise<T[]> {
  const items: T[] = []
  for (let n = 1; ; n++) {
    const { items: found, pagination } = await page(n)
    items.push(...found)
    if (!pagination.hasNextPage) return items
  }
}

/** A client of one server. Every method rejects with `ApiError`; nothing is sent until one is called. */
export function createClient(options: ClientOptions): Client {
  const baseUrl = options.baseUrl.replace(/\/+$/, '')
  const now = options.now ?? (() => performance.now())
  const sleep = options.sleep ?? sleepMs
  const newKey = options.newKey ?? (() => crypto.randomUUID())
  const headers: Record<string, string> =
    options.apiKey === undefined ? {} : { 'open-sandbox-api-key': options.apiKey }
  const transport = createTransport({
    baseUrl,
    fetch: options.fetch ?? ((request) => fetch(request)),
    requestLimitMs: options.requestLimitMs ?? 30_000,
    retryLimitMs: options.retryLimitMs ?? 5000,
    now,
    sleep,
  })
  // The key is sent to this server and nowhere it may redirect to.
  const http = createFetchClient<paths>({ baseUrl, headers, fetch: transport.fetch, redirect: 'error' })
  const keyed = (given?: IntentOptions): { 'idempotency-key': string } => ({
    'idempotency-key': given?.idempotencyKey ?? newKey(),
  })
  const open = (path: string, init: RequestInit = {}): Promise<Response> =>
    transport.open(
      new Request(`${baseUrl}/v1${path}`, {
        redirect: 'error',
        ...init,
        headers: { ...headers, ...(init.headers as Record<string, string> | undefined) },
      }),
    )
  const intent =
    (verb: 'start' | 'stop' | 'restart' | 'pause' | 'resume' | 'recover'): Intent =>
    async (id, given) => {
      await must(http.POST(`/v1/sandboxes/{id}/${verb}`, { params: { path: { id }, header: keyed(given) } }))
    }
  const sandboxPage: Client['sandboxes']['page'] = ({ state, metadata, includeDeleted, ...rest }) =>
    must(
      http.GET('/v1/sandboxes', {
        params: {
          query: {
            ...rest,
            ...(includeDeleted === true ? { includeDeleted: 'true' } : {}),
            ...(state === undefined ? {} : { state: [...state] }),
            ...(metadata === undefined ? {} : { metadata: metadataFilter(metadata) }),
          },
        },
      }),
    )
  const body = (response: Response): ReadableStream<Uint8Array> => {
    if (response.body === null)
      throw clientError('SERVER_UNREACHABLE', { url: baseUrl, detail: 'the answer is empty' })
    return response.body
  }

  const sandboxes: Client['sandboxes'] = {
    create: (request, given) =>
      must(http.POST('/v1/sandboxes', { body: request, params: { header: keyed(given) } })),
    page: sandboxPage,
    list: (filter = {}) => walk((page) => sandboxPage({ ...filter, page, pageSize: WALK_PAGE_SIZE })),
    get: (id, { includeDeleted } = {}) =>
      must(
        http.GET('/v1/sandboxes/{id}', {
          params: { path: { id }, query: includeDeleted === true ? { includeDeleted: 'true' } : {} },
        }),
      ),
    resolve: async (ref) => (await must(http.GET('/v1/resolve', { params: { query: { ref } } }))).id,
    remove: async (id) => {
      await must(http.DELETE('/v1/sandboxes/{id}', { params: { path: { id } } }))
    },
    update: (id, change) =>
      must(http.PATCH('/v1/sandboxes/{id}', { params: { path: { id } }, body: change })),
    patchMetadata: (id, change) =>
      must(http.PATCH('/v1/sandboxes/{id}/metadata', { params: { path: { id } }, body: change })),
    start: intent('start'),
    stop: intent('stop'),
    restart: intent('restart'),
    pause: intent('pause'),
    resume: intent('resume'),
    recover: intent('recover'),
    renew: (id, expiresAt) =>
      must(
        http.POST('/v1/sandboxes/{id}/renew-expiration', { params: { path: { id } }, body: { expiresAt } }),
      ),
    endpoint: (id, port, { useServerProxy, expires } = {}) =>
      must(
        http.GET('/v1/sandboxes/{id}/endpoints/{port}', {
          params: {
            path: { id, port },
            query: {
              ...(useServerProxy === undefined
                ? {}
                : { use_server_proxy: useServerProxy ? 'true' : 'false' }),
              ...(expires === undefined ? {} : { expires: String(expires) }),
            },
          },
        }),
      ),
    link: (id, port, expiresInSeconds) =>
      must(
        http.POST('/v1/sandboxes/{id}/ports/{port}/link', {
          params: { path: { id, port } },
          body: expiresInSeconds === undefined ? {} : { expiresInSeconds },
        }),
      ),
    explain: (id) => must(http.GET('/v1/sandboxes/{id}/explain', { params: { path: { id } } })),
    stats: (id) => must(http.GET('/v1/sandboxes/{id}/stats', { params: { path: { id } } })),
    logs: async function* (id, { signal, ...rest } = {}) {
      const path = `/sandboxes/${encodeURIComponent(id)}/logs${query(rest)}`
      const { ndjson, toLogLine } = await import('./streams.ts')
      const response = await open(path, {
        headers: { accept: 'application/x-ndjson' },
        ...(signal === undefined ? {} : { signal }),
      })
      for await (const line of ndjson(body(response), baseUrl)) yield toLogLine(line)
    },
    exec: (id, request) =>
      must(http.POST('/v1/sandboxes/{id}/exec', { params: { path: { id } }, body: request })),
    openExec: async (id, request) => {
      const { openExec } = await import('./exec.ts')
      return openExec(baseUrl, id, headers, request)
    },
    download: async (id, path, signal) =>
      body(
        await open(
          `/sandboxes/${encodeURIComponent(id)}/archive${query({ path })}`,
          signal === undefined ? {} : { signal },
        ),
      ),
    upload: async (id, path, tar, signal) => {
      await open(`/sandboxes/${encodeURIComponent(id)}/archive${query({ path })}`, {
        method: 'PUT',
        body: tar,
        duplex: 'half',
        headers: { 'content-type': 'application/x-tar' },
        ...(signal === undefined ? {} : { signal }),
      })
    },
  }

  const volumes: Client['volumes'] = {
    create: (request, given) =>
      must(http.POST('/v1/volumes', { body: request, params: { header: keyed(given) } })),
    list: ({ includeRemoved } = {}) => {
      const filter = includeRemoved === true ? { includeRemoved: 'true' as const } : {}
      return walk((page) =>
        must(http.GET('/v1/volumes', { params: { query: { ...filter, page, pageSize: WALK_PAGE_SIZE } } })),
      )
    },
    get: (id) => must(http.GET('/v1/volumes/{id}', { params: { path: { id } } })),
    remove: (id) => must(http.DELETE('/v1/volumes/{id}', { params: { path: { id } } })),
  }

  const events: Client['events'] = {
    list: async function* ({ after = 0, ...filter } = {}) {
      for (let from = after; ;) {
        const { items } = await must(
          http.GET('/v1/events', { params: { query: { ...filter, after: from, limit: EVENT_PAGE_SIZE } } }),
        )
        yield* items
        from = items.at(-1)?.seq ?? from
        if (items.length < EVENT_PAGE_SIZE) return
      }
    },
    follow: (filter = {}) => followEvents({ baseUrl, open, now, sleep }, filter),
  }

  return {
    baseUrl,
    sandboxes,
    volumes,
    events,
    audit: () => must(http.GET('/v1/audit', {})),
    recovery: () => must(http.GET('/v1/recovery', {})),
    confirmRecovery: () => must(http.POST('/v1/recovery/confirm', {})),
    engines: async () => (await must(http.GET('/v1/engines', {}))).items,
    info: () => must(http.GET('/v1/info', {})),
    health: () => must(http.GET('/health', {})),
  }
}
