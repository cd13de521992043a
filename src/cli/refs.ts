import type { Client } from '@holdfast/client'
import type { Context } from './context.ts'
import { describe, exitCodeOf, Interrupted, worst } from './errors.ts'
import { UsageError } from './parse.ts'

/** Refs of one command that are worked on at the same time. */
const AT_ONCE = 8

/**
 * Does the work for every ref, also after one failed, tells each failure with its ref, and gives the exit code of
 * the worst (DESIGN: several refs in one command are all handled).
 */
export async function forEachRef(
  context: Context,
  refs: readonly string[],
  work: (ref: string) => Promise<number>,
): Promise<number> {
  const waiting = [...new Set(refs)]
  const many = waiting.length > 1
  const codes: number[] = []
  const worker = async (): Promise<void> => {
    for (let ref = waiting.shift(); ref !== undefined; ref = waiting.shift()) {
      try {
        codes.push(await work(ref))
      } catch (error) {
        if (error instanceof Interrupted) throw error
        context.note(describe(error, many ? ref : ''))
        codes.push(exitCodeOf(error))
      }
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  return worst(codes)
}

/** The id for a name, an id or the unique beginning of one. */
export function resolveRef(client: Client, ref: string): Promise<string> {
  if (ref.trim() === '') throw new UsageError('An empty name was given', 'List sandboxes with `holdfast ls`.')
  return client.sandboxes.resolve(ref)
}
