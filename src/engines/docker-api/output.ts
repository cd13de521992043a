import { type Duplex, Readable } from 'node:stream'
import { EngineError } from '../../model/facts.ts'
import { createFrameParser, type OutputStream } from './frames.ts'

/** The two output streams of a hijacked connection, with back-pressure: while either is full the connection is not read. */
export interface Output {
  readonly stdout: Readable
  readonly stderr: Readable
  /** Resolves when the connection has ended, however it did. */
  readonly ended: Promise<void>
  /** True when we ended it. */
  dropped(): boolean
  destroy(error?: Error): void
}

const HIGH_WATER_BYTES = 256 * 1024

export function createOutput(socket: Duplex, format: 'framed' | 'raw'): Output {
  let dropped = false
  const full = { stdout: false, stderr: false }
  const wake = (stream: OutputStream): void => {
    full[stream] = false
    if (!full.stdout && !full.stderr) socket.resume()
  }
  const readable = (stream: OutputStream): Readable => {
    const made = new Readable({
      highWaterMark: HIGH_WATER_BYTES,
      read: () => wake(stream),
      // A stream that its reader gave up no longer holds back the other one.
      destroy(error, callback) {
        wake(stream)
        callback(error)
      },
    })
    // Whoever reads it hears its failure; one that nobody reads must not end the process.
    made.on('error', () => undefined)
    return made
  }
  const streams = { stdout: readable('stdout'), stderr: readable('stderr') }
  const take = (stream: OutputStream, data: Buffer): void => {
    const to = streams[stream]
    if (to.destroyed || to.push(data)) return
    full[stream] = true
    socket.pause()
  }
  const parser = createFrameParser(take)
  const close = (error?: Error): void => {
    for (const stream of [streams.stdout, streams.stderr]) {
      if (stream.destroyed || stream.readableEnded) continue
      if (error === undefined) stream.push(null)
      else stream.destroy(error)
    }
  }
  const drop = (error?: Error): void => {
    dropped = true
    socket.destroy()
    streams.stdout.destroy(error)
    streams.stderr.destroy(error)
  }

  const ended = new Promise<void>((resolve) => {
    let failure: Error | undefined
    let over = false
    const finish = (error?: Error): void => {
      if (!over) close(error)
      over = true
      resolve()
    }
    socket.on('data', (chunk: Buffer) => {
      try {
        if (format === 'raw') take('stdout', chunk)
        else parser.push(chunk)
      } catch (error) {
        drop(error instanceof Error ? error : new Error(String(error)))
      }
    })
    socket.on('error', (error) => (failure = error))
    socket.once('end', () => {
      finish(format === 'framed' && !parser.whole() ? lost() : undefined)
      // The program is over. The engine may keep its side open for as long as input is on its way that nobody reads.
      socket.destroy()
    })
    // A program that ends before it has read its input makes the engine close with input unread: the kernel tells a
    // reset then, behind all output. Anything else without an `end` before it may have lost output.
    socket.once('close', () =>
      finish(wasReset(failure) && parser.whole() && !full.stdout && !full.stderr ? undefined : lost(failure)),
    )
  })
  return { ...streams, ended, dropped: () => dropped, destroy: drop }
}

function wasReset(error: Error | undefined): boolean {
  return error !== undefined && 'code' in error && (error.code === 'EPIPE' || error.code === 'ECONNRESET')
}

function lost(cause?: Error): EngineError {
  return new EngineError(
    'unreachable',
    'unknown',
    'The connection to the engine broke; output may be missing',
    { cause },
  )
}
