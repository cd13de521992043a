import { Readable } from 'node:stream'
import { EngineError } from '../../model/facts.ts'
import type { EngineEvent, ExecRequest, ExecStream, LogChunk, LogRequest } from '../engine.ts'
import type { FaultPlan } from './faults.ts'
import type { SimContainer } from './objects.ts'
import type { Process, ProcessSetup, Sink, Source } from './process.ts'
import type { World } from './world.ts'

/** What a pipe holds, as on Linux. */
const PIPE_BYTES = 64 * 1024
const INTERRUPT = 0x03

interface Output {
  readonly stream: Readable
  readonly sink: Sink
  /** Ends the stream; resolves when all of it was read or nobody reads any more. */
  finish(): Promise<void>
}

function createOutput(): Output {
  let room: (() => void) | null = null
  const stream = new Readable({
    highWaterMark: PIPE_BYTES,
    read() {
      room?.()
      room = null
    },
    destroy(error, done) {
      room?.()
      done(error)
    },
  })
  return {
    stream,
    async sink(data) {
      if (stream.destroyed || stream.readableEnded) return
      if (!stream.push(data)) await new Promise<void>((resolve) => (room = resolve))
    },
    finish: () =>
      new Promise((resolve) => {
        stream.once('end', resolve)
        stream.once('close', resolve)
        if (!stream.destroyed) stream.push(null)
        if (stream.destroyed || stream.readableLength === 0) resolve()
      }),
  }
}

interface Input {
  readonly source: Source
  write(data: Uint8Array): Promise<void>
  end(): void
  /** Nobody reads any more: blocked writes fail. */
  close(): void
}

function createInput(open: boolean): Input {
  const chunks: Uint8Array[] = []
  let held = 0
  let ended = !open
  let closed = false
  const waiting = new Set<() => void>()
  const wake = (): void => {
    for (const go of waiting) go()
    waiting.clear()
  }
  const change = (): Promise<void> => new Promise((resolve) => void waiting.add(resolve))
  return {
    async source() {
      while (chunks.length === 0 && !ended) await change()
      const next = chunks.shift()
      held -= next?.length ?? 0
      wake()
      return next ?? null
    },
    async write(data) {
      if (ended || closed) throw new EngineError('failed', 'none', 'standard input is closed')
      chunks.push(Uint8Array.from(data))
      held += data.length
      wake()
      while (held > PIPE_BYTES && !closed) await change()
      if (closed && held > 0)
        throw new EngineError('failed', 'unknown', 'standard input was closed before it was read')
    },
    end() {
      ended = true
      wake()
    },
    close() {
      closed = true
      ended = true
      wake()
    },
  }
}

/** Connects an exec's process to the streams that its caller holds. */
export function createExecStream(
  request: ExecRequest,
  begin: (io: Partial<ProcessSetup>) => Process,
): ExecStream {
  const stdout = createOutput()
  const stderr = createOutput()
  const input = createInput(request.stdin)
  let size = request.tty ?? null
  const process = begin({
    stdin: input.source,
    stdout: stdout.sink,
    stderr: request.tty === undefined ? stderr.sink : stdout.sink,
    terminal: () => size,
  })
  const dropped = Promise.withResolvers<null>()
  const whole = process.ended.then(async (code) => {
    input.close()
    await Promise.all([stdout.finish(), stderr.finish()])
    return code
  })
  return {
    stdout: stdout.stream,
    stderr: stderr.stream,
    async write(data) {
      if (request.tty !== undefined && data.includes(INTERRUPT)) process.signal('INT')
      else await input.write(data)
    },
    end: () => input.end(),
    exit: Promise.race([whole, dropped.promise]),
    async resize(columns, rows) {
      if (size !== null) size = { columns, rows }
    },
    destroy(error) {
      input.close()
      stdout.stream.destroy(error)
      stderr.stream.destroy()
      dropped.resolve(null)
    },
  }
}

function lines(log: readonly LogChunk[]): LogChunk[] {
  return log.flatMap((chunk) => {
    const parts = Buffer.from(chunk.data)
      .toString('latin1')
      .split(/(?<=\n)/)
    return parts.filter((p) => p !== '').map((p) => ({ ...chunk, data: Buffer.from(p, 'latin1') }))
  })
}

/** The log so far, and with `follow` what comes until the instance ends or the signal is aborted. */
export async function* readLog(
  c: SimContainer,
  request: LogRequest,
  signal: AbortSignal | undefined,
): AsyncGenerator<LogChunk> {
  let seen = c.log.length
  const past = lines(c.log).filter((chunk) => (chunk.at ?? 0) >= request.sinceMs)
  yield* request.tail === null ? past : past.slice(Math.max(0, past.length - request.tail))
  while (request.follow) {
    if (signal?.aborted === true) throw new EngineError('aborted', 'none', 'the log was aborted')
    const next = c.log[seen]
    if (next !== undefined) {
      seen += 1
      yield next
    } else if (c.state === 'running') await news(c, signal)
    else return
  }
}

function news(c: SimContainer, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      c.watchers.delete(done)
      signal?.removeEventListener('abort', done)
      resolve()
    }
    c.watchers.add(done)
    signal?.addEventListener('abort', done, { once: true })
  })
}

/** Hints, through the plan's losses; a daemon that went away is a gap, which ends with `resync`. */
export async function* readEvents(
  world: World,
  faults: FaultPlan,
  signal: AbortSignal,
  severed: () => boolean,
): AsyncGenerator<EngineEvent> {
  const queue: EngineEvent[] = []
  let held: EngineEvent | null = null
  let wake = (): void => undefined
  const take = (event: EngineEvent): void => {
    const fate = event.kind === 'resync' ? 'deliver' : (faults.event?.(event) ?? 'deliver')
    if (fate === 'hold' && held === null) {
      held = event
      return
    }
    if (fate !== 'drop') queue.push(event)
    if (fate === 'double') queue.push(event)
    if (held !== null) queue.push(held)
    held = null
    wake()
  }
  const off = world.subscribe(take)
  const onAbort = (): void => wake()
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    while (!signal.aborted) {
      const event = severed() ? undefined : queue.shift()
      if (event !== undefined) yield event
      else await new Promise<void>((resolve) => (wake = resolve))
    }
  } finally {
    off()
    signal.removeEventListener('abort', onAbort)
  }
}
