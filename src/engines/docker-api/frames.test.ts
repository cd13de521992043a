import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createFrameParser } from './frames.ts'

const frame = (kind: number, data: Uint8Array): Buffer => {
  const header = Buffer.alloc(8)
  header[0] = kind
  header.writeUInt32BE(data.length, 4)
  return Buffer.concat([header, data])
}

/** Cuts a buffer at the given places. */
const cut = (whole: Buffer, places: readonly number[]): Buffer[] => {
  const marks = [0, ...places.map((p) => p % (whole.length + 1)).toSorted((a, b) => a - b), whole.length]
  return marks.slice(1).map((end, i) => whole.subarray(marks[i], end))
}

test('frames come out whole, wherever the connection cuts them', () => {
  const frames = fc.array(
    fc.record({ kind: fc.constantFrom(1, 2), data: fc.uint8Array({ maxLength: 40 }) }),
    { maxLength: 12 },
  )
  fc.assert(
    fc.property(frames, fc.array(fc.nat(), { maxLength: 20 }), (list, places) => {
      const got = { stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) }
      let ends = 0
      const parser = createFrameParser((stream, data, last) => {
        got[stream] = Buffer.concat([got[stream], data])
        if (last) ends += 1
      })
      for (const piece of cut(Buffer.concat(list.map((f) => frame(f.kind, f.data))), places))
        parser.push(piece)
      const of = (kind: number): Buffer =>
        Buffer.concat(list.filter((f) => f.kind === kind).map((f) => f.data))
      expect(got.stdout.equals(of(1))).toBe(true)
      expect(got.stderr.equals(of(2))).toBe(true)
      expect(ends).toBe(list.filter((f) => f.data.length > 0).length)
      expect(parser.whole()).toBe(true)
    }),
  )
})

test('a stream that ends within a frame is told from a whole one', () => {
  const parser = createFrameParser(() => undefined)
  parser.push(frame(1, Buffer.from('abc')).subarray(0, 10))
  expect(parser.whole()).toBe(false)
})

test('bytes that are no frame are refused', () => {
  const parser = createFrameParser(() => undefined)
  expect(() => parser.push(Buffer.from('HTTP/1.1 200'))).toThrow(/not framed/)
})
