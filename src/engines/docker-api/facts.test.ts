import { expect, test } from 'vitest'
import { isAbout, isFullId, toFacts } from './facts.ts'
import type { ContainerInspect } from './types.ts'

const ZERO = '0001-01-01T00:00:00Z'
const run = { engine: 'r', boot: null }
const inspect = (
  state: Partial<ContainerInspect['State']>,
  over: Partial<ContainerInspect> = {},
): ContainerInspect => ({
  Id: 'a'.repeat(64),
  Name: '/hf-x-1',
  Created: '2026-01-01T00:00:00.5Z',
  State: {
    Running: false,
    Paused: false,
    OOMKilled: false,
    ExitCode: 0,
    StartedAt: ZERO,
    FinishedAt: ZERO,
    ...state,
  },
  ...over,
})

test('what was never started has no times and no exit status', () => {
  expect(toFacts('x', inspect({ ExitCode: 127 }), run)).toMatchObject({
    name: 'hf-x-1',
    state: 'stopped',
    createdAt: Date.parse('2026-01-01T00:00:00.500Z'),
    startedAt: null,
    finishedAt: null,
    exitCode: null,
    run,
  })
})

test('what runs has neither end nor status, although the engine still tells those of its last life', () => {
  const facts = toFacts(
    'x',
    inspect({
      Running: true,
      Paused: true,
      ExitCode: 3,
      StartedAt: '2026-01-03T00:00:00Z',
      FinishedAt: '2026-01-02T00:00:00Z',
    }),
    run,
  )
  expect(facts).toMatchObject({ state: 'running', paused: true, finishedAt: null, exitCode: null })
})

test('an end is never before its start', () => {
  const facts = toFacts(
    'x',
    inspect({ ExitCode: 3, StartedAt: '2026-01-03T00:00:00.005Z', FinishedAt: '2026-01-03T00:00:00.001Z' }),
    run,
  )
  expect(facts).toMatchObject({ exitCode: 3, startedAt: facts.finishedAt })
})

test('volumes have their name, host paths have none, and other mounts are not ours to tell', () => {
  const Mounts = [
    { Type: 'volume', Name: 'v', Destination: '/data', RW: true },
    { Type: 'bind', Destination: '/host', RW: false },
    { Type: 'tmpfs', Destination: '/tmp', RW: true },
  ]
  expect(toFacts('x', inspect({}, { Mounts }), run).mounts).toEqual([
    { path: '/data', readOnly: false, volume: 'v' },
    { path: '/host', readOnly: true, volume: null },
  ])
})

test('the beginning of an id is not its name', () => {
  expect(isAbout(inspect({}), 'hf-x-1')).toBe(true)
  expect(isAbout(inspect({}), 'a'.repeat(64))).toBe(true)
  expect(isAbout(inspect({}), 'aaaa')).toBe(false)
  expect(isFullId('aaaa')).toBe(false)
  expect(isFullId('a'.repeat(64))).toBe(true)
})

test('an answer without identity is an error, not a guess', () => {
  const broken = { ...inspect({}), Id: '' }
  expect(() => toFacts('x', broken, run)).toThrow(/not understood/)
})
