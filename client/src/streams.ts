import { createParser, type EventSourceMessage } from 'eventsource-parser'
import { clientError } from './errors.ts'
import type { Event } from './types.ts'

/** One piece of a sandbox's output, in the order the engine kept it. */
export interface LogLine {
  readonly stream: 'stdout' | 'stderr'
  /** When the engine got it; null when the engine does not say. */
  readonly time: string | null
  readonly data: Uint8Array
}

/** A line longer than this is not ours: the server cuts output into smaller pieces. */
const MAX_LINE_CHARS = 16 * 1024 * 1024

/** Reads a body as text, chunk by chunk; leaving the loop early cancels the request. */
async function* textOf(body: ReadableStream<Uint8Array>, url: string): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  try {
    for await (const chunk of body) yield decoder.decode(chunk, { stream: true })
  } catch (error) {
    if (error instanceof Error && error.name === 'AbortError') throw error
    throw clientError('SERVER_UNREACHABLE', { url, detail: 'the connection ended early' }, error)
  }
}

/** The lines of an NDJSON body. A last line that the connection cut is dropped. */
export async function* ndjson(body: ReadableStream<Uint8Array>, url: string): AsyncGenerator<unknown> {
  let rest = ''
  for await (const part of textOf(body, url)) {
    const lines = (rest + part).split('\n')
    rest = lines.pop() ?? ''
    if (rest.length > MAX_LINE_CHARS) {
      throw clientError('SERVER_UNREACHABLE', { url, detail: 'it sent a line that is too long' })
    }
    for (const line of lines) if (line.trim() !== '') yield JSON.parse(line) as unknown
  }
}

export function toLogLine(value: unknown): LogLine {
  const raw = value as { stream: string; time: string | null; data: string }
  const bytes = Uint8Array.from(atob(raw.data), (c) => c.codePointAt(0) ?? 0)
  return { stream: raw.stream === 'stderr' ? 'stderr' : 'stdout', time: raw.time, data: bytes }
}

/** The events of a server-sent stream; `alive` is called for everything received, heartbeats included. */
export async function* serverSentEvents(
  body: ReadableStream<Uint8Array>,
  url: string,
  alive: () => void,
): AsyncGenerator<Event> {
  const ready: EventSourceMessage[] = []
  const parser = createParser({ onEvent: (event) => ready.push(event) })
  for await (const part of textOf(body, url)) {
    alive()
    parser.feed(part)
    for (const message of ready.splice(0)) yield JSON.parse(message.data) as Event
  }
}
