import type { Client, Sandbox } from '@holdfast/client'
import type { Command } from 'commander'
import type { Context, Run } from './context.ts'
import { forEachRef, resolveRef } from './refs.ts'
import { goals, waitFor, waitOptions, type Goal, type WaitOptions } from './wait.ts'

interface Verb {
  readonly examples: readonly string[]
  readonly act: (client: Client, id: string) => Promise<void>
  /** What to wait for; `before` is the sandbox as it was, read only when the goal needs it. */
  readonly goal: (before: Sandbox | null) => Goal
  readonly needsBefore?: boolean
}

export const examples = (lines: readonly string[]): string =>
  `\nExamples:\n${lines.map((l) => `  ${l}`).join('\n')}\n`

/** The commands that record one intent per sandbox and wait until it is so. */
export function defineVerb(command: Command, run: Run, verb: Verb): void {
  waitOptions(command.argument('<sandbox...>', 'names, ids or beginnings of ids'))
    .addHelpText('after', examples(verb.examples))
    .action((refs: string[], options: WaitOptions) =>
      run(command, (context) => forEachRef(context, refs, (ref) => oneRef(context, ref, options, verb))),
    )
}

async function oneRef(context: Context, ref: string, options: WaitOptions, verb: Verb): Promise<number> {
  const client = await context.client()
  const id = await resolveRef(client, ref)
  const before = verb.needsBefore === true && options.wait ? await client.sandboxes.get(id) : null
  await verb.act(client, id)
  if (options.wait) await waitFor(context, client, id, ref, verb.goal(before), options.timeout)
  context.print(ref)
  return 0
}

/** Running again, under another start than before. */
export function restarted(before: Sandbox | null): Goal {
  const was = before?.instance ?? null
  return {
    ...goals.running,
    what: 'running again',
    reached: (s) => {
      if (!goals.running.reached(s) || s === null) return false
      return was === null || s.instance?.number !== was.number || s.instance.startedAt !== was.startedAt
    },
  }
}
