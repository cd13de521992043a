import { expect, test } from 'vitest'
import { causeOf } from './exit-cause.ts'
import { toEvent } from './events.ts'
import type { EventMessage } from './types.ts'

const at = (
  ms: number,
  Action: string,
  id = 'me',
  Attributes: Record<string, string> = {},
): EventMessage => ({
  Type: 'container',
  Action,
  Actor: { ID: id, Attributes },
  timeNano: ms * 1e6,
})
const START = 100_000
const END = 200_000
const before = at(START - 5, 'create')
const life = { id: 'me', startedAt: START, finishedAt: END }
const cause = (...events: EventMessage[]): string | null => causeOf(events, life, START - 50_000)

test('an end that the engine remembers nobody asking for is its own', () => {
  expect(cause(before, at(END, 'die'))).toBe('own')
})

test('a kill shortly before, or a stop around the end, is external', () => {
  expect(cause(before, at(END - 3_000, 'kill', 'me', { signal: '15' }), at(END, 'die'))).toBe('external')
  expect(cause(before, at(END, 'die'), at(END + 5, 'stop'))).toBe('external')
})

test('signals to others, long before, of an earlier life, or without effect are no cause', () => {
  expect(cause(before, at(END - 10, 'kill', 'you', { signal: '9' }), at(END, 'die'))).toBe('own')
  expect(cause(before, at(END - 60_000, 'kill', 'me', { signal: '1' }), at(END, 'die'))).toBe('own')
  expect(cause(at(START - 10, 'kill', 'me', { signal: '9' }), at(END, 'die'))).toBe('own')
  expect(cause(before, at(END - 10, 'kill', 'me', { signal: '28' }), at(END, 'die'))).toBe('own')
})

test('a memory that does not reach back, or forgot the end, proves nothing', () => {
  expect(cause(at(END, 'die'))).toBeNull()
  expect(cause(before)).toBeNull()
  expect(cause()).toBeNull()
})

test('events of containers that are not ours are left out, those of volumes are not', () => {
  const labels = { name: 'hf-x-1', 'holdfast.dev/installation': 'i' }
  expect(toEvent(at(5, 'die', 'id', labels))).toEqual({
    kind: 'instance',
    name: 'hf-x-1',
    id: 'id',
    action: 'die',
    at: 5,
  })
  expect(toEvent(at(5, 'die', 'id', { name: 'other' }))).toBeNull()
  expect(toEvent({ ...at(5, 'destroy', 'vol'), Type: 'volume' })).toEqual({
    kind: 'volume',
    name: 'vol',
    action: 'destroy',
    at: 5,
  })
})

test('what a daemon ends at its start was asked for by nobody', () => {
  const restored = [at(END - 2, 'kill', 'me', { signal: '15' }), at(END, 'die'), at(END + 1, 'stop')]
  expect(causeOf(restored, life, END + 50)).toBeNull()
  expect(causeOf(restored, life, null)).toBeNull()
  expect(causeOf([...restored, at(END + 100, 'kill', 'me', { signal: '9' })], life, END + 50)).toBe(
    'external',
  )
  expect(causeOf([before, ...restored], life, null)).toBe('external')
})
