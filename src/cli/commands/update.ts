import type { Sandbox, UpdateSandbox } from '@holdfast/client'
import type { Context, Define } from '../context.ts'
import { examples } from '../lifecycle.ts'
import { collect, commandWords, parseEnv, parseRestartPolicy, UsageError } from '../parse.ts'
import { resolveRef } from '../refs.ts'
import { limitOptions, resourceLimits } from '../spec.ts'
import { argument, durationOption, goals, waitFor, waitOptions, type WaitOptions } from '../wait.ts'

interface UpdateOptions extends WaitOptions {
  readonly image?: string
  readonly env?: string[]
  readonly unsetEnv?: string[]
  readonly cpu?: string
  readonly memory?: string
  readonly pids?: number
  readonly restart?: string
  readonly stopGrace?: number
  readonly name?: string
}

export const define: Define = (command, run) => {
  limitOptions(
    command
      .argument('<sandbox>', 'name, id or the beginning of one')
      .argument('[command...]', 'new main process')
      .option('--image <image>', 'new image')
      .option('-e, --env <NAME=value>', 'set an environment entry (repeatable)', collect)
      .option('--unset-env <NAME>', 'remove an environment entry (repeatable)', collect)
      .option('--restart <policy>', 'no, always, on-failure or on-failure:<n>', argument(parseRestartPolicy))
      .addOption(durationOption('--stop-grace <duration>', 'time between TERM and KILL when it is stopped'))
      .option('--name <name>', 'new name'),
  )
  waitOptions(command)
    .addHelpText(
      'after',
      examples([
        'holdfast update --image nginx:1.29 web',
        'holdfast update -e DEBUG=1 --unset-env TRACE --memory 2Gi web',
      ]),
    )
    .addHelpText(
      'after',
      'A change of image, environment, limits or command makes a new instance on the same volumes.\n',
    )
    .action((ref: string, words: string[], options: UpdateOptions) =>
      run(command, (context) => update(context, ref, words, options)),
    )
}

export function changeOf(
  words: readonly string[],
  options: Omit<UpdateOptions, keyof WaitOptions>,
  here: Context['io']['env'],
): UpdateSandbox {
  const limits = resourceLimits(options)
  const command = commandWords(words)
  const env = {
    ...parseEnv(options.env ?? [], here),
    ...Object.fromEntries((options.unsetEnv ?? []).map((name) => [name, null])),
  }
  const change: UpdateSandbox = {
    ...(options.image === undefined ? {} : { image: { uri: options.image } }),
    ...(Object.keys(env).length === 0 ? {} : { env }),
    ...(limits === null ? {} : { resourceLimits: limits }),
    ...(command.length === 0 ? {} : { entrypoint: command }),
    ...(options.restart === undefined ? {} : { restartPolicy: options.restart }),
    ...(options.stopGrace === undefined ? {} : { stopGraceSeconds: Math.ceil(options.stopGrace / 1000) }),
    ...(options.name === undefined ? {} : { name: options.name }),
  }
  if (Object.keys(change).length === 0)
    throw new UsageError('Nothing to change was given', 'holdfast update --help')
  return change
}

async function update(
  context: Context,
  ref: string,
  words: readonly string[],
  options: UpdateOptions,
): Promise<number> {
  const change = changeOf(words, options, context.io.env)
  const client = await context.client()
  const id = await resolveRef(client, ref)
  const changed: Sandbox = await client.sandboxes.update(id, change)
  const label = changed.name ?? ref
  const goal = changed.desired.state === 'running' ? goals.running : goals.settled
  if (options.wait) await waitFor(context, client, id, label, goal, options.timeout)
  context.print(label)
  return 0
}
