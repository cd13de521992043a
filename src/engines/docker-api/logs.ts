import { EngineError } from '../../model/facts.ts'
import type { Call, LogChunk, LogRequest } from '../engine.ts'
import type { Api } from './api.ts'
import { createFrameParser, type OutputStream } from './frames.ts'
import { engineSeconds } from './time.ts'

/** The longest message that is put together, bytes: the engine itself cuts lines at 16 KiB. */
const MAX_MESSAGE_BYTES = 1024 * 1024
const SPACE = 0x20
/** `2026-01-02T03:04:05.123456789+01:00` and its space fit. */
const MAX_TIMESTAMP_BYTES = 40

export async function readLogs(
  api: Api,
  id: string,
  request: LogRequest,
  call: Call,
): Promise<AsyncIterable<LogChunk>> {
  const { body } = await api.stream({
    what: `reading the log of instance ${id}`,
    method: 'GET',
    path: `/containers/${encodeURIComponent(id)}/logs`,
    query: {
      stdout: true,
      stderr: true,
      timestamps: true,
      follow: request.follow,
      since: request.sinceMs > 0 ? engineSeconds(request.sinceMs) : undefined,
      tail: request.tail ?? undefined,
    },
    endless: true,
    call,
  })
  return logChunks(body)
}

/** The messages of a framed log with timestamps. */
export async function* logChunks(body: AsyncIterable<Buffer>): AsyncGenerator<LogChunk> {
  let ready: LogChunk[] = []
  let parts: Buffer[] = []
  let size = 0
  const parser = createFrameParser((stream, data, last) => {
    parts.push(data)
    size += data.length
    if (size > MAX_MESSAGE_BYTES) throw new EngineError('failed', 'none', 'A message of the log has no end')
    if (!last) return
    ready.push(message(stream, parts.length === 1 ? data : Buffer.concat(parts)))
    parts = []
    size = 0
  })
  for await (const chunk of body) {
    parser.push(chunk)
    const now = ready
    ready = []
    yield* now
  }
  if (!parser.whole()) throw new EngineError('unreachable', 'none', 'The log broke off')
}

function message(stream: OutputStream, data: Buffer): LogChunk {
  const space = data.subarray(0, MAX_TIMESTAMP_BYTES).indexOf(SPACE)
  const at = space < 0 ? Number.NaN : Date.parse(data.toString('latin1', 0, space))
  // Without a time in front it is not the engine's timestamp: nothing of the output is cut off then.
  return Number.isNaN(at) ? { stream, at: null, data } : { stream, at, data: data.subarray(space + 1) }
}
