import { expect, test } from 'vitest'
import { exited, NOW, view, withInstance } from '../../../test/support/plan.ts'
import { planSandbox } from '../../plan/sandbox.ts'
import { recover, start } from './lifecycle.ts'

const backoff = (code: string) => ({ attempts: 9, nextAt: NOW + 60_000, error: 'refused', code, at: NOW - 1 })
const failed = (code: string) =>
  withInstance({
    backoff: backoff(code),
    status: { phase: 'Failed', reason: '', message: '', difference: '', next: '', nextAt: null },
  })

test('recover gives leave to replace an instance that the engine cannot start any more', () => {
  const asked = recover(failed('wedged'), NOW)?.record
  expect(planSandbox(view(withInstance(asked), exited())).step).toMatchObject({
    kind: 'remove-instance',
    why: 'recover',
  })
})

test.each([
  ['start', start, 'wedged'],
  ['recover after another failure', recover, 'failed'],
] as const)('%s replaces nothing that is there', (_name, decide, code) => {
  const asked = decide(failed(code), NOW)?.record
  expect(asked?.backoff).toBeNull()
  expect(planSandbox(view(withInstance(asked), exited({ finishedAt: NOW - 1 }))).step?.kind).toBe(
    'start-instance',
  )
})
