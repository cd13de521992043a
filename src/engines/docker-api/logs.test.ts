import { expect, test } from 'vitest'
import type { LogChunk } from '../engine.ts'
import { logChunks } from './logs.ts'
import { engineSeconds, parseTime } from './time.ts'

const frame = (kind: number, text: string): Buffer => {
  const header = Buffer.alloc(8)
  header[0] = kind
  header.writeUInt32BE(Buffer.byteLength(text), 4)
  return Buffer.concat([header, Buffer.from(text)])
}

async function* bytewise(whole: Buffer): AsyncGenerator<Buffer> {
  for (const byte of whole) yield await Promise.resolve(Buffer.from([byte]))
}

const read = async (whole: Buffer): Promise<LogChunk[]> => {
  const out: LogChunk[] = []
  for await (const chunk of logChunks(bytewise(whole))) out.push(chunk)
  return out
}

test('the time is parsed off each message, and nothing else', async () => {
  const whole = Buffer.concat([
    frame(1, '2026-01-02T03:04:05.123456789Z a b\n'),
    frame(2, '2026-01-02T03:04:06.000000000Z \n'),
    frame(1, 'no time\n'),
  ])
  const [first, second, third] = await read(whole)
  expect(first).toMatchObject({ stream: 'stdout', at: Date.parse('2026-01-02T03:04:05.123Z') })
  expect(Buffer.from(first?.data ?? []).toString()).toBe('a b\n')
  expect(second).toMatchObject({ stream: 'stderr', at: Date.parse('2026-01-02T03:04:06Z') })
  expect(Buffer.from(second?.data ?? []).toString()).toBe('\n')
  expect(third?.at).toBeNull()
  expect(Buffer.from(third?.data ?? []).toString()).toBe('no time\n')
})

test('a log that breaks off within a message is an error', async () => {
  await expect(read(frame(1, 'abc').subarray(0, 9))).rejects.toThrow(/broke off/)
})

test('times of the engine', () => {
  expect(parseTime('0001-01-01T00:00:00Z')).toBeNull()
  expect(parseTime('1970-01-01T00:00:01.5Z')).toBe(1_500)
  expect(parseTime(undefined)).toBeNull()
  expect(engineSeconds(1_500.7)).toBe('1.500000000')
})
