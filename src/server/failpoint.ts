import { writeSync } from 'node:fs'
import { fail } from '../model/errors.ts'
import type { StepKind } from '../model/records.ts'
import type { Hooks, StepPoint } from '../reconcile/context.ts'

/** A record of each, so that a new kind or point that is not named here does not compile. */
const KINDS: { readonly [K in StepKind]: true } = {
  'pull-image': true,
  'create-volume': true,
  'remove-volume': true,
  'create-instance': true,
  'start-instance': true,
  'stop-instance': true,
  'pause-instance': true,
  'unpause-instance': true,
  'remove-instance': true,
}
const POINTS: { readonly [P in StepPoint]: true } = {
  'before-intent': true,
  'after-intent': true,
  'after-effect': true,
  'after-outcome': true,
}

export const STEP_KINDS: readonly StepKind[] = Object.keys(KINDS) as StepKind[]
export const STEP_POINTS: readonly StepPoint[] = Object.keys(POINTS) as StepPoint[]

const STDERR = 2

/** What the process says last. */
export const reachedLine = (kind: StepKind, point: StepPoint): string => `failpoint ${kind}:${point} reached`

/**
 * Dies at a named point of a step: `HOLDFAST_FAILPOINT=create-instance:after-effect` or with a count,
 * `…:after-effect:3`. A real SIGKILL in the built program: no handler runs, nothing is flushed. For fault tests only,
 * so a name that no step has is refused: a test whose failpoint is never reached proves nothing.
 */
export function failpoint(text: string | undefined): NonNullable<Hooks['point']> | undefined {
  if (text === undefined || text === '') return undefined
  const [kind = '', point = '', count = '1', ...rest] = text.split(':')
  if (
    !Object.hasOwn(KINDS, kind) ||
    !Object.hasOwn(POINTS, point) ||
    !/^[1-9]\d*$/.test(count) ||
    rest.length > 0
  ) {
    const message = `${text} is not kind:point or kind:point:count; kinds: ${STEP_KINDS.join(', ')}; points: ${STEP_POINTS.join(', ')}`
    throw fail('CONFIG_INVALID', { source: 'HOLDFAST_FAILPOINT', issues: [{ path: '', message }] })
  }
  let left = Number(count)
  return (k, p) => {
    if (k !== kind || p !== point) return
    left--
    if (left > 0) return
    // By the system call itself: nothing that is buffered outlives the next line.
    writeSync(STDERR, `${reachedLine(k, p)}\n`)
    process.kill(process.pid, 'SIGKILL')
  }
}
