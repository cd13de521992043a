import { EngineError } from '../../model/facts.ts'

/**
 * Docker's framing of two output streams on one connection: eight bytes (stream, three zeros, length big-endian), then
 * the payload. The parser keeps at most one header: payload is handed on as it comes, without a copy.
 */
export interface FrameParser {
  push(chunk: Buffer): void
  /** True between frames: an end anywhere else lost something. */
  whole(): boolean
}

export type OutputStream = 'stdout' | 'stderr'

const HEADER_BYTES = 8

/**
 * `onData` gets the parts of a frame's payload in order; `last` marks the part that ends the frame.
 * `push` throws `EngineError` on bytes that are no frame.
 */
export function createFrameParser(
  onData: (stream: OutputStream, data: Buffer, last: boolean) => void,
): FrameParser {
  const header = Buffer.alloc(HEADER_BYTES)
  let have = 0
  let left = 0
  let stream: OutputStream = 'stdout'

  return {
    push(chunk) {
      let at = 0
      while (at < chunk.length) {
        if (left > 0) {
          const part = chunk.subarray(at, at + left)
          at += part.length
          left -= part.length
          onData(stream, part, left === 0)
          continue
        }
        const taken = chunk.copy(header, have, at, at + HEADER_BYTES - have)
        have += taken
        at += taken
        if (have < HEADER_BYTES) return
        have = 0
        stream = streamOf(header)
        left = header.readUInt32BE(4)
      }
    },
    whole: () => have === 0 && left === 0,
  }
}

function streamOf(header: Buffer): OutputStream {
  const [kind, a, b, c] = header
  if (a === 0 && b === 0 && c === 0) {
    if (kind === 2) return 'stderr'
    // 0 is the echo of standard input, which engines write to the output.
    if (kind === 1 || kind === 0) return 'stdout'
    // 3 carries an error of the engine; its text is worth more than a refusal to parse it.
    if (kind === 3) return 'stderr'
  }
  throw new EngineError(
    'failed',
    'unknown',
    `The engine's output stream is not framed as expected (${header.toString('hex')})`,
  )
}
