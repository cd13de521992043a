import type { Hooks } from '../reconcile/context.ts'

/**
 * Dies at a named point of a step: `HOLDFAST_FAILPOINT=create-instance:after-effect` or with a count,
 * `…:after-effect:3`. A real SIGKILL in the built program: no handler runs, nothing is flushed. For fault tests only.
 */
export function failpoint(text: string | undefined): NonNullable<Hooks['point']> | undefined {
  if (text === undefined || text === '') return undefined
  const [kind, point, count] = text.split(':')
  let left = count === undefined ? 1 : Number(count)
  return (k, p) => {
    if (k !== kind || p !== point) return
    left--
    if (left === 0) process.kill(process.pid, 'SIGKILL')
  }
}
