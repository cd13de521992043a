import { ApiError, clientError, errorFromAnswer } from './errors.ts'

export type Fetch = (request: Request) => Promise<Response>

export interface TransportOptions {
  readonly baseUrl: string
  readonly fetch: Fetch
  /** Limit of one request whose answer is read whole, in milliseconds. */
  readonly requestLimitMs: number
  /** How long a request that may be repeated is repeated after a lost connection, in milliseconds; 0: never. */
  readonly retryLimitMs: number
  readonly now: () => number
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>
}

export interface Transport {
  /** Sends, repeats what may be repeated, and ends everything, body included, after the request limit. */
  readonly fetch: Fetch
  /** Opens a stream: the limit covers the answer's head only. Rejects with `ApiError` on a non-2xx answer. */
  open(request: Request): Promise<Response>
}

/** First and largest pause between two tries; short, because a local server restarts in half a second. */
const FIRST_PAUSE_MS = 50
const LARGEST_PAUSE_MS = 1000

function causeCode(error: unknown): string {
  for (let e: unknown = error, depth = 0; e instanceof Error && depth < 5; e = e.cause, depth++) {
    const code = (e as NodeJS.ErrnoException).code
    if (typeof code === 'string') return code
  }
  return error instanceof Error ? error.message : String(error)
}

/**
 * Only what cannot take effect twice: reads, deletes (by an id that is never used again), and posts that carry an
 * Idempotency-Key.
 */
export function mayRepeat(request: Request): boolean {
  if (request.method === 'GET' || request.method === 'HEAD' || request.method === 'DELETE') return true
  return request.method === 'POST' && request.headers.has('idempotency-key')
}

/** What a connection that was cut, or is not yet accepted again, looks like; a wrong name or certificate stays wrong. */
const PASSING = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'UND_ERR_SOCKET'])

/** A read of a server that never answered fails at once when it is refused: most likely none is running. */
function isWorthATry(error: unknown, request: Request, answered: boolean): boolean {
  if (!(error instanceof ApiError) || error.code !== 'SERVER_UNREACHABLE') return false
  const code = causeCode(error.cause)
  if (code === 'ECONNREFUSED' && !answered && request.method !== 'POST') return false
  return PASSING.has(code)
}

/** Turns what `fetch` throws into the table's errors; an abort by the caller stays what the caller gave as reason. */
function networkError(
  options: TransportOptions,
  request: Request,
  error: unknown,
  limited: boolean,
): unknown {
  if (error instanceof ApiError || request.signal.aborted) return error
  if (limited) {
    const what = `${request.method} ${new URL(request.url).pathname}`
    return clientError('TIMEOUT', { what, afterMs: options.requestLimitMs }, error)
  }
  return clientError('SERVER_UNREACHABLE', { url: options.baseUrl, detail: causeCode(error) }, error)
}

export function createTransport(options: TransportOptions): Transport {
  let answered = false

  const once = async (request: Request, limit: AbortSignal): Promise<Response> => {
    try {
      const signal = AbortSignal.any([request.signal, limit])
      const response = await options.fetch(new Request(request, { signal }))
      answered = true
      return response
    } catch (error) {
      throw networkError(options, request, error, limit.aborted)
    }
  }

  const repeated = async (request: Request, limit: AbortSignal): Promise<Response> => {
    const until = options.now() + options.retryLimitMs
    for (
      let pause = FIRST_PAUSE_MS, attempt = 1;
      ;
      pause = Math.min(pause * 2, LARGEST_PAUSE_MS), attempt++
    ) {
      try {
        const response = await once(request.clone(), limit)
        // The first delete was taken although its answer was lost.
        const wasTaken = request.method === 'DELETE' && attempt > 1 && response.status === 404
        return wasTaken ? new Response(null, { status: 204 }) : response
      } catch (error) {
        if (!isWorthATry(error, request, answered) || options.now() + pause > until) throw error
        await options.sleep(pause, request.signal)
      }
    }
  }

  return {
    fetch: (request) => {
      const limit = AbortSignal.timeout(options.requestLimitMs)
      return mayRepeat(request) ? repeated(request, limit) : once(request, limit)
    },
    open: async (request) => {
      const head = new AbortController()
      const timer = setTimeout(() => head.abort(), options.requestLimitMs)
      try {
        const response = await once(request, head.signal)
        if (response.ok) return response
        throw errorFromAnswer(response.status, await readBody(response), response.headers.get('x-request-id'))
      } finally {
        clearTimeout(timer)
      }
    },
  }
}

async function readBody(response: Response): Promise<unknown> {
  const body = await response.text()
  try {
    return JSON.parse(body) as unknown
  } catch {
    // Not JSON: the text itself tells the most.
    return body
  }
}
