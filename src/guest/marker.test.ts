import { PassThrough } from 'node:stream'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createMarkerReader, createOutput, type Output } from './marker.ts'

const TAG = 'abacabad0123'

async function text(output: Output): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of output.stream) parts.push(part as Buffer)
  return Buffer.concat(parts)
}

/** Feeds the pieces one by one; resolves with what came out and the marker's line. */
async function read(pieces: readonly Buffer[]): Promise<{ body: Buffer; line: string | null }> {
  const source = new PassThrough()
  const output = createOutput()
  let line: string | null = null
  const reader = createMarkerReader(source, () => output.end())
  reader.expect(TAG, output, (rest) => {
    line = rest
    output.end()
  })
  const body = text(output)
  for (const piece of pieces) source.write(piece)
  source.end(() => setImmediate(() => output.end()))
  return { body: await body, line }
}

describe('marker reader', () => {
  it('finds the tag wherever chunks are cut, and gives out every byte before it and none after', async () => {
    const byte = fc.constantFrom(...Buffer.from('abcd0\n\0'), 0xff)
    await fc.assert(
      fc.asyncProperty(
        fc.array(byte, { maxLength: 60 }),
        fc.array(fc.nat(90), { maxLength: 12 }),
        async (bytes, cuts) => {
          const body = Buffer.from(bytes)
          const whole = Buffer.concat([body, Buffer.from(`${TAG} 7\nlater`)])
          const at = [0, ...cuts.filter((c) => c < whole.length).toSorted((a, b) => a - b), whole.length]
          const pieces = at.slice(1).map((end, i) => whole.subarray(at[i], end))
          const got = await read(pieces)
          expect(got.body.equals(body)).toBe(true)
          expect(got.line).toBe(' 7')
        },
      ),
      { numRuns: 300 },
    )
  })

  it('gives out output that only looks like the head of a tag once it cannot be one', async () => {
    const got = await read([Buffer.from('abacabaabacabad012'), Buffer.from('4'), Buffer.from(`x${TAG} 0\n`)])
    expect(got.body.toString()).toBe('abacabaabacabad0124x')
  })

  it('does not hold back output that lacks a newline', async () => {
    const source = new PassThrough()
    const output = createOutput()
    createMarkerReader(source, () => undefined).expect(TAG, output, () => undefined)
    source.write('prompt> ')
    const first = await output.stream[Symbol.asyncIterator]().next()
    expect(String(first.value)).toBe('prompt> ')
  })

  it('gives out a held-back head of a tag when the stream ends there', async () => {
    const source = new PassThrough()
    const output = createOutput()
    const reader = createMarkerReader(source, () => undefined)
    reader.expect(TAG, output, () => undefined)
    source.write('xabac')
    source.end()
    source.once('end', () => {
      reader.flush()
      output.end()
    })
    expect((await text(output)).toString()).toBe('xabac')
  })

  it('pauses its source while the reader is behind, and goes on when it has caught up', async () => {
    const source = new PassThrough({ highWaterMark: 1024 })
    const output = createOutput()
    createMarkerReader(source, () => undefined).expect(TAG, output, () => output.end())
    const piece = Buffer.alloc(64 * 1024, 'x')
    let taken = 0
    for (; taken < 100 && source.write(piece); taken++) await new Promise((resolve) => setImmediate(resolve))
    expect(taken).toBeLessThan(100)
    expect(source.isPaused()).toBe(true)
    source.end(`${TAG} 0\n`)
    expect((await text(output)).length).toBe((taken + 1) * piece.length)
  })

  it('calls a stream broken whose marker is followed by an endless line', () => {
    const source = new PassThrough()
    const why: string[] = []
    createMarkerReader(source, (text) => why.push(text)).expect(TAG, null, () => undefined)
    source.write(TAG + 'x'.repeat(200))
    return new Promise<void>((resolve) => {
      setImmediate(() => {
        expect(why).toHaveLength(1)
        resolve()
      })
    })
  })

  it('looks at each byte a bounded number of times, also when every byte starts a tag', () => {
    const source = new PassThrough()
    const output = createOutput()
    output.discard()
    createMarkerReader(source, () => undefined).expect('a'.repeat(31) + 'b', output, () => undefined)
    // One-byte chunks of the tag's first letter are the worst case; a scan from the start would take minutes.
    for (let i = 0; i < 200_000; i++) source.emit('data', Buffer.from('a'))
    expect(source.isPaused()).toBe(false)
  })
})
