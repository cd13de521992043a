import type { IncomingHttpHeaders } from 'node:http'
import { type Duplex, Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import type { Clock } from '../../model/clock.ts'
import { EngineError } from '../../model/facts.ts'
import type { Call } from '../engine.ts'
import { fencedError, transportError } from './failure.ts'

export interface HttpRequest {
  /** In words, for errors: `starting instance x`. */
  readonly what: string
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE'
  /** With the query. */
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Readable
  /** It may change something: fenced, and its effect is unknown once it was sent. */
  readonly mutation: boolean
  /** Asks for a raw two-way stream; the answer then has `socket`. */
  readonly upgrade?: boolean
  /** The limit ends with the headers, because the body has no end that can be foreseen. */
  readonly endless?: boolean
  readonly call: Call
}

export interface HttpReply {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** Must be read or destroyed. Fails with `EngineError`. */
  readonly body: Readable
  /** Only after an upgrade. Holds what came right behind the headers. */
  readonly socket: Duplex | null
}

/** The limit and the signal of one call as one event; `dispose` forgets both. */
interface Watch {
  dispose(): void
}

function watch(
  clock: Clock,
  request: HttpRequest,
  onStop: (error: EngineError) => void,
): Watch & { limitOff(): void } {
  const { call, what } = request
  const limitOff = clock.after(call.limitMs, () =>
    onStop(new EngineError('timeout', 'none', `${what} was not done after ${Math.round(call.limitMs)} ms`)),
  )
  const onAbort = (): void => onStop(new EngineError('aborted', 'none', `${what} was aborted`))
  call.signal?.addEventListener('abort', onAbort, { once: true })
  return {
    limitOff,
    dispose() {
      limitOff()
      call.signal?.removeEventListener('abort', onAbort)
    },
  }
}

/**
 * One HTTP exchange. Resolves with the headers; rejects with `EngineError` only. The fence is asked when a connection
 * is there and before the first byte is written, so that an answer of the fence is never older than the send.
 */
export function exchange(dispatcher: Dispatcher, clock: Clock, request: HttpRequest): Promise<HttpReply> {
  const { what, mutation, call } = request
  if (call.signal?.aborted === true)
    return Promise.reject(new EngineError('aborted', 'none', `${what} was aborted`))
  return new Promise((resolve, reject) => {
    let controller: Dispatcher.DispatchController | null = null
    let body: Readable | null = null
    let stopped: EngineError | null = null

    const fail = (error: unknown): void => {
      watching.dispose()
      const mapped = transportError(what, error, controller !== null, mutation)
      if (body === null) reject(mapped)
      else body.destroy(mapped)
    }
    const watching = watch(clock, request, (error) => {
      stopped = error
      if (controller === null) fail(error)
      else controller.abort(error)
    })

    const handler: Dispatcher.DispatchHandler = {
      onRequestStart(started) {
        if (stopped !== null) throw stopped
        try {
          if (mutation) call.fence?.()
        } catch (error) {
          throw fencedError(what, error)
        }
        controller = started
      },
      onResponseStart(_, status, headers) {
        if (request.endless === true && status < 300) watching.limitOff()
        body = bodyOf(controller, () => watching.dispose())
        resolve({ status, headers, body, socket: null })
      },
      onResponseData(active, chunk) {
        if (body?.push(chunk) === false) active.pause()
      },
      onResponseEnd() {
        watching.dispose()
        body?.push(null)
      },
      onRequestUpgrade(_, status, headers, socket) {
        watching.dispose()
        socket.on('error', ignoreUnheard)
        resolve({ status, headers, body: Readable.from([]), socket })
      },
      onResponseError(_, error) {
        fail(stopped ?? error)
      },
    }
    const options: Dispatcher.DispatchOptions = {
      method: request.method,
      path: request.path,
      headers: { ...request.headers },
      body: request.body ?? null,
      upgrade: request.upgrade === true ? 'tcp' : null,
      // A change is never sent behind an unanswered request on the same connection.
      idempotent: !mutation,
    }
    try {
      dispatcher.dispatch(options, handler)
    } catch (error) {
      fail(error)
    }
  })
}

/** Whoever uses the stream hears its failure there; this keeps one that nobody uses any more from ending the process. */
function ignoreUnheard(): void {}

function bodyOf(controller: Dispatcher.DispatchController | null, done: () => void): Readable {
  const body = new Readable({
    highWaterMark: 64 * 1024,
    read() {
      controller?.resume()
    },
    destroy(error, callback) {
      done()
      // Closes the connection when the reader leaves before the end; nothing when all was read.
      controller?.abort(error ?? new Error('the reader left'))
      callback(error)
    },
  })
  body.on('error', ignoreUnheard)
  return body
}

/** The largest answer that is read as a whole, bytes: a list of some thousand containers fits several times. */
const MAX_WHOLE_BYTES = 64 * 1024 * 1024

/** Reads a whole body as text. */
export async function readText(what: string, body: Readable): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of body as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > MAX_WHOLE_BYTES)
      throw new EngineError(
        'failed',
        'unknown',
        `${what}: the answer is larger than ${MAX_WHOLE_BYTES} bytes`,
      )
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}
