import { Readable } from 'node:stream'

/** Bytes a command may be ahead of its reader, per stream, before it is blocked. */
const OUTPUT_BUFFER_BYTES = 256 * 1024
/** A marker's line holds a pid or a status; anything longer is not from our shell. */
const MARKER_LINE_MAX_BYTES = 128

/** One output of one command: what is pushed comes out of `stream`, and `push` says when to wait. */
export interface Output {
  readonly stream: Readable
  /** False when the reader is behind; `onDrain` is then called once when there is room, or nobody reads any more. */
  push(data: Buffer, onDrain: () => void): boolean
  end(): void
  /** Drops what is to come: nobody reads any more. */
  discard(): void
}

export function createOutput(): Output {
  let drain: (() => void) | null = null
  let dropping = false
  let ended = false
  const release = (): void => {
    const fn = drain
    drain = null
    fn?.()
  }
  const stream = new Readable({
    highWaterMark: OUTPUT_BUFFER_BYTES,
    read: release,
    destroy(error, done) {
      dropping = true
      done(error)
      release()
    },
  })
  return {
    stream,
    push(data, onDrain) {
      if (dropping || ended || data.length === 0) return true
      if (stream.push(data)) return true
      drain = onDrain
      return false
    },
    end() {
      if (ended) return
      ended = true
      if (!dropping) stream.push(null)
    },
    discard() {
      dropping = true
      release()
    },
  }
}

/** Reads one stream of a lane: what comes before a marker goes to the output, the marker's own line to a callback. */
export interface MarkerReader {
  /**
   * From now on: bytes before `tag` go to `output` (null: nowhere), and the rest of the tag's line, without its
   * newline, to `onLine`. After that everything is dropped until the next `expect`, which `onLine` may call.
   */
  expect(tag: string, output: Output | null, onLine: (rest: string) => void): void
  /** Gives out what was held back because it looked like the head of a marker: no more is coming. */
  flush(): void
}

/**
 * Scans in one pass: only the tail of a chunk that may be the head of the tag is held back, so output is never
 * delayed behind a newline, and a tag over any number of chunk borders costs no second look at what came before.
 */
export function createMarkerReader(source: Readable, onBroken: (why: string) => void): MarkerReader {
  let tag: Buffer = Buffer.alloc(0)
  let output: Output | null = null
  let onLine: (rest: string) => void = () => undefined
  let phase: 'idle' | 'body' | 'line' = 'idle'
  let held: Buffer = Buffer.alloc(0)

  const resume = (): void => {
    source.resume()
  }
  const emit = (data: Buffer): void => {
    if (output !== null && !output.push(data, resume)) source.pause()
  }
  const feed = (chunk: Buffer): void => {
    let rest = held.length === 0 ? chunk : Buffer.concat([held, chunk])
    held = Buffer.alloc(0)
    while (rest.length > 0 && phase !== 'idle') {
      if (phase === 'body') {
        const at = rest.indexOf(tag)
        if (at === -1) {
          const keep = headOfTagAtEnd(rest, tag)
          emit(rest.subarray(0, rest.length - keep))
          held = Buffer.from(rest.subarray(rest.length - keep))
          return
        }
        emit(rest.subarray(0, at))
        rest = rest.subarray(at + tag.length)
        phase = 'line'
        continue
      }
      const newline = rest.indexOf(10)
      if (newline === -1 && rest.length <= MARKER_LINE_MAX_BYTES) {
        held = Buffer.from(rest)
        return
      }
      phase = 'idle'
      resume()
      if (newline === -1 || newline > MARKER_LINE_MAX_BYTES) {
        onBroken('the end marker was followed by something else')
        return
      }
      const text = rest.toString('latin1', 0, newline)
      rest = rest.subarray(newline + 1)
      onLine(text)
    }
  }
  source.on('data', feed)
  return {
    expect(nextTag, nextOutput, nextOnLine) {
      tag = Buffer.from(nextTag, 'latin1')
      output = nextOutput
      onLine = nextOnLine
      phase = 'body'
    },
    flush() {
      if (phase === 'body') emit(held)
      held = Buffer.alloc(0)
      phase = 'idle'
    },
  }
}

/** Length of the longest end of `data` that is a proper head of `tag`. */
function headOfTagAtEnd(data: Buffer, tag: Buffer): number {
  const most = Math.min(tag.length - 1, data.length)
  for (
    let at = data.indexOf(tag[0] as number, data.length - most);
    at !== -1;
    at = data.indexOf(tag[0] as number, at + 1)
  ) {
    const length = data.length - at
    if (data.compare(tag, 0, length, at) === 0) return length
  }
  return 0
}
