import { expect, it } from 'vitest'
import { aSandbox, createStep, NOW, withInstance } from '../../test/support/plan.ts'
import { BREAKER_AFTER } from './backoff.ts'
import { afterSandboxFailure, mayHaveSeeded, type StepFailure } from './failure.ts'

const failed: StepFailure = { kind: 'failed', effect: 'none', message: 'no' }

it('waits longer after each failure, and opens the breaker in the end', () => {
  let record = withInstance()
  const waits: number[] = []
  for (let i = 0; i < BREAKER_AFTER; i++) {
    expect(record.breaker).toBeNull()
    record = afterSandboxFailure(record, createStep, failed, NOW, 0.5)
    waits.push((record.backoff?.nextAt ?? 0) - NOW)
  }
  expect(waits.slice(0, 4)).toEqual([500, 1000, 2000, 4000])
  expect(record.breaker?.probeAt).toBeGreaterThan(NOW)
})

it('an engine that does not answer opens no breaker and waits seconds at most', () => {
  let record = withInstance()
  for (let i = 0; i < 30; i++)
    record = afterSandboxFailure(record, createStep, { ...failed, kind: 'unreachable' }, NOW, 0.5)
  expect(record.breaker).toBeNull()
  expect((record.backoff?.nextAt ?? 0) - NOW).toBeLessThanOrEqual(5_000)
})

it('a spec that the engine refuses for good ends the first create, and no later one', () => {
  const refused: StepFailure = { kind: 'invalid', effect: 'none', message: 'bad' }
  const first = aSandbox({ instanceSeq: 1 })
  expect(afterSandboxFailure(first, createStep, refused, NOW, 0)).toMatchObject({
    desired: 'deleted',
    desiredReason: 'create-failed',
  })
  const later = withInstance({ generation: 2 })
  expect(afterSandboxFailure(later, createStep, refused, NOW, 0).desired).toBe('running')
})

it('being told to stop is no failure', () => {
  const record = withInstance()
  expect(afterSandboxFailure(record, createStep, { ...failed, kind: 'aborted' }, NOW, 0)).toBe(record)
})

it('only refusals before anything was made leave a volume unseeded', () => {
  expect(mayHaveSeeded({ kind: 'conflict', effect: 'none', message: '' })).toBe(false)
  expect(mayHaveSeeded({ kind: 'disk-full', effect: 'none', message: '' })).toBe(true)
  expect(mayHaveSeeded({ kind: 'timeout', effect: 'unknown', message: '' })).toBe(true)
})
