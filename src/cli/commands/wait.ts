import { Option } from 'commander'
import type { Context, Define } from '../context.ts'
import { examples } from '../lifecycle.ts'
import { parseDuration } from '../parse.ts'
import { forEachRef, resolveRef } from '../refs.ts'
import { ApiError, type Client } from '@holdfast/client'
import { durationOption, goals, waitFor } from '../wait.ts'

type Until = 'running' | 'stopped' | 'paused' | 'deleted'

interface WaitCliOptions {
  readonly for: Until
  readonly timeout: number
}

export const define: Define = (command, run) => {
  command
    .argument('<sandbox...>', 'names, ids or beginnings of ids')
    .addOption(
      new Option('--for <state>', 'what to wait for')
        .choices(['running', 'stopped', 'paused', 'deleted'])
        .default('running'),
    )
    .addOption(
      durationOption('--timeout <duration>', 'give up after this (exit 124)').default(
        parseDuration('5m'),
        '5m',
      ),
    )
    .addHelpText(
      'after',
      examples(['holdfast wait web', 'holdfast wait --for stopped --timeout 1h job && holdfast logs job']),
    )
    .action((refs: string[], options: WaitCliOptions) =>
      run(command, (context) => forEachRef(context, refs, (ref) => waitOne(context, ref, options))),
    )
}

async function waitOne(context: Context, ref: string, options: WaitCliOptions): Promise<number> {
  const client = await context.client()
  const id = await resolveUnlessGone(client, ref, options.for)
  if (id === null) return 0
  await waitFor(context, client, id, ref, goals[options.for], options.timeout)
  return 0
}

/** One that is not there is already what `--for deleted` waits for. */
async function resolveUnlessGone(client: Client, ref: string, until: Until): Promise<string | null> {
  try {
    return await resolveRef(client, ref)
  } catch (error) {
    if (until === 'deleted' && error instanceof ApiError && error.status === 404) return null
    throw error
  }
}
