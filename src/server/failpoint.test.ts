import { expect, test } from 'vitest'
import { failpoint, STEP_KINDS, STEP_POINTS } from './failpoint.ts'

test('nothing is armed without a name', () => {
  expect(failpoint(undefined)).toBeUndefined()
  expect(failpoint('')).toBeUndefined()
})

test('every kind and point is a name, with and without a count', () => {
  for (const kind of STEP_KINDS)
    for (const point of STEP_POINTS)
      for (const text of [`${kind}:${point}`, `${kind}:${point}:12`])
        expect(failpoint(text), text).toBeTypeOf('function')
})

test.each([
  'create-instance',
  'create-instance:',
  'create-instance:after',
  'createInstance:after-effect',
  'create-instance:after-effect:0',
  'create-instance:after-effect:x',
  'create-instance:after-effect:1:1',
  'toString:after-effect',
])('%s, which would never be reached, is refused', (text) => {
  expect(() => failpoint(text)).toThrow(/HOLDFAST_FAILPOINT/)
})
