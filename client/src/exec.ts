import { PassThrough, type Readable } from 'node:stream'
import type { RawData, WebSocket as Socket } from 'ws'
import { clientError, errorFromAnswer } from './errors.ts'
import type { ExecRequest } from './types.ts'

export type ExecSignal = 'INT' | 'TERM' | 'KILL' | 'HUP' | 'QUIT' | 'USR1' | 'USR2'

export interface ExecOptions extends ExecRequest {
  /** True: `write` and `end` feed the command's stdin; false: it reads nothing. */
  readonly stdin?: boolean
  readonly tty?: { readonly columns: number; readonly rows: number }
  readonly signal?: AbortSignal
}

export interface ExecExit {
  /** The command's status, 128+n for a signal; null when it is not known: see `lost`. */
  readonly exitCode: number | null
  readonly timedOut: boolean
  readonly lost: string | null
}

export interface ExecSession {
  /** Both must be read: the command waits while they are not (back-pressure). With a tty all is on stdout. */
  readonly stdout: Readable
  readonly stderr: Readable
  /** Resolves when the data has left; await it, so that a slow command slows its source. */
  write(data: Uint8Array): Promise<void>
  /** Ends the command's stdin. */
  end(): Promise<void>
  resize(columns: number, rows: number): Promise<void>
  /** To the command's whole process group. */
  kill(signal: ExecSignal): Promise<void>
  /** Resolves when all output is here, though perhaps not yet read. Rejects when the command could not be run or the connection was lost. */
  readonly exit: Promise<ExecExit>
  /** Leaves; a command still running is ended by the server. */
  close(): void
}

interface ServerMessage {
  readonly type: string
  readonly exitCode?: number | null
  readonly timedOut?: boolean
  readonly lost?: string | null
  readonly error?: unknown
}

/** Pieces in which stdin is sent, in bytes: small enough that a signal is not queued behind much. */
const STDIN_PIECE_BYTES = 64 * 1024
/** How long the connection may take to be made, in milliseconds. */
const CONNECT_LIMIT_MS = 15_000
/** A silent connection is probed with a ping each time this passes, in milliseconds, and given up after two. */
const PING_EVERY_MS = 20_000

/** How long the server may take to say goodbye, in milliseconds. */
const CLOSE_LIMIT_MS = 1000

const STDIN = 0x00
const STDOUT = 0x01

const lostError = (id: string, detail: string): Error => clientError('LANE_LOST', { id, detail })

/** Connects; an answer that is no upgrade becomes the API error it carries. */
async function connect(baseUrl: string, id: string, headers: Record<string, string>): Promise<Socket> {
  const { WebSocket } = await import('ws')
  const url = `${baseUrl.replace(/^http/, 'ws')}/v1/sandboxes/${encodeURIComponent(id)}/exec`
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, {
      headers,
      perMessageDeflate: false,
      handshakeTimeout: CONNECT_LIMIT_MS,
      followRedirects: false,
    })
    socket.once('open', () => {
      socket.removeAllListeners('error')
      resolve(socket)
    })
    socket.once('error', (error: NodeJS.ErrnoException) => {
      reject(clientError('SERVER_UNREACHABLE', { url: baseUrl, detail: error.code ?? error.message }, error))
    })
    socket.once('unexpected-response', (_request, response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8')
        reject(
          errorFromAnswer(
            response.statusCode ?? 0,
            parseJson(text),
            String(response.headers['x-request-id'] ?? ''),
          ),
        )
        socket.terminate()
      })
    })
  })
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    // Not JSON: the text itself tells the most.
    return text
  }
}

const bytesOf = (data: RawData): Buffer =>
  Array.isArray(data) ? Buffer.concat(data) : Buffer.isBuffer(data) ? data : Buffer.from(data)

/** Ends the connection when nothing at all came back for two pings: a peer that vanished sends no close. */
function keepAlive(socket: Socket): () => void {
  let silent = 0
  const heard = (): void => {
    silent = 0
  }
  socket.on('pong', heard)
  socket.on('message', heard)
  const timer = setInterval(() => {
    // While we hold the reading back ourselves, silence says nothing about the peer.
    if (socket.isPaused) return
    if (silent >= 2) socket.terminate()
    silent += 1
    if (socket.readyState === socket.OPEN) socket.ping()
  }, PING_EVERY_MS)
  timer.unref()
  return () => clearInterval(timer)
}

/** Feeds the two outputs and stops reading the connection while either is full. */
function outputs(socket: Socket): {
  stdout: PassThrough
  stderr: PassThrough
  push: (frame: Buffer) => void
} {
  const stdout = new PassThrough()
  const stderr = new PassThrough()
  const full = new Set<PassThrough>()
  const push = (frame: Buffer): void => {
    const target = frame[0] === STDOUT ? stdout : stderr
    if (target.write(frame.subarray(1)) || full.has(target)) return
    full.add(target)
    socket.pause()
    target.once('drain', () => {
      full.delete(target)
      if (full.size === 0) socket.resume()
    })
  }
  return { stdout, stderr, push }
}

/** Runs a command in a sandbox over a WebSocket. Rejects with `ApiError` when it cannot be started. */
export async function openExec(
  baseUrl: string,
  id: string,
  headers: Record<string, string>,
  options: ExecOptions,
): Promise<ExecSession> {
  options.signal?.throwIfAborted()
  const socket = await connect(baseUrl, id, headers)
  const stopPings = keepAlive(socket)
  const { stdout, stderr, push } = outputs(socket)
  const send = (data: Uint8Array | string): Promise<void> =>
    new Promise((resolve, reject) => {
      socket.send(data, (error) => (error == null ? resolve() : reject(lostError(id, error.message))))
    })
  const sendJson = (message: object): Promise<void> => send(JSON.stringify(message))

  const exit = new Promise<ExecExit>((resolve, reject) => {
    let over = false
    // Frames arrive in order, so with the last message everything before it is here.
    const finish = (settle: () => void): void => {
      if (over) return
      over = true
      stopPings()
      stdout.end()
      stderr.end()
      settle()
      socket.close(1000)
      setTimeout(() => socket.terminate(), CLOSE_LIMIT_MS).unref()
    }
    const onMessage = (message: ServerMessage): void => {
      const { exitCode = null, timedOut = false, lost = null } = message
      if (message.type === 'exit') finish(() => resolve({ exitCode, timedOut, lost }))
      if (message.type === 'error') finish(() => reject(errorFromAnswer(422, message.error)))
    }
    socket.on('message', (data, isBinary) => {
      if (isBinary) push(bytesOf(data))
      else onMessage(parseJson(bytesOf(data).toString('utf8')) as ServerMessage)
    })
    socket.on('error', (error) => finish(() => reject(lostError(id, error.message))))
    socket.once('close', (closeCode, reason) => {
      const why = reason.toString() || `the server closed the connection (${closeCode})`
      finish(() => reject(lostError(id, why)))
    })
  })
  // Whoever started the session awaits `exit` later; until then its rejection is not an unhandled one.
  exit.catch(() => undefined)
  const onAbort = (): void => socket.terminate()
  options.signal?.addEventListener('abort', onAbort, { once: true })
  void exit.catch(() => undefined).finally(() => options.signal?.removeEventListener('abort', onAbort))

  const { signal: _signal, stdin = false, ...request } = options
  await sendJson({ type: 'start', ...request, stdin })
  return {
    stdout,
    stderr,
    exit,
    write: async (data) => {
      for (let at = 0; at < data.length; at += STDIN_PIECE_BYTES) {
        const piece = data.subarray(at, at + STDIN_PIECE_BYTES)
        const frame = new Uint8Array(piece.length + 1)
        frame[0] = STDIN
        frame.set(piece, 1)
        await send(frame)
      }
    },
    end: () => sendJson({ type: 'eof' }),
    resize: (columns, rows) => sendJson({ type: 'resize', columns, rows }),
    kill: (name) => sendJson({ type: 'signal', signal: name }),
    close: () => socket.terminate(),
  }
}
