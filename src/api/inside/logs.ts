import type { LogChunk } from '../../engines/engine.ts'
import { fail } from '../../model/errors.ts'
import { isoOrNull } from '../present/time.ts'

/** Numbers below this are seconds ago, others seconds since the epoch: about the year 2001. */
const EPOCH_SECONDS_FROM = 1_000_000_000

/** `since` as RFC 3339 or seconds; milliseconds since the epoch. */
export function parseSince(text: string | undefined, now: number): number {
  if (text === undefined || text === '') return 0
  if (/^\d{1,13}(\.\d{1,9})?$/.test(text)) {
    const seconds = Number(text)
    return seconds < EPOCH_SECONDS_FROM ? now - seconds * 1000 : seconds * 1000
  }
  const at = /^\d{4}-\d\d-\d\dT/.test(text) ? Date.parse(text) : Number.NaN
  if (Number.isNaN(at)) {
    throw fail('INVALID_REQUEST', {
      issues: [{ path: 'since', message: 'must be an RFC 3339 time or a number of seconds' }],
    })
  }
  return at
}

/** One JSON object per line; the data is base64, since output is bytes. */
export async function* ndjsonLogs(chunks: AsyncIterable<LogChunk>): AsyncGenerator<string> {
  for await (const chunk of chunks) {
    const data = Buffer.from(chunk.data).toString('base64')
    yield `${JSON.stringify({ stream: chunk.stream, time: isoOrNull(chunk.at), data })}\n`
  }
}

/** The bytes of both streams, in the order the engine kept them. */
export async function* rawLogs(chunks: AsyncIterable<LogChunk>): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) yield chunk.data
}
