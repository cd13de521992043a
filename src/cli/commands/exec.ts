import type { Context, Define } from '../context.ts'
import { attach, requireTerminal } from '../attach.ts'
import { examples } from '../lifecycle.ts'
import { collect, commandWords, parseEnv, UsageError } from '../parse.ts'
import { resolveRef } from '../refs.ts'
import { durationOption } from '../wait.ts'

interface ExecCliOptions {
  readonly interactive?: boolean
  readonly tty?: boolean
  readonly env?: string[]
  readonly workdir?: string
  readonly user?: string
  readonly timeout?: number
}

export const define: Define = (command, run) => {
  command
    .argument('<sandbox>', 'name, id or the beginning of one')
    .argument('<command...>', 'the command and its arguments')
    .passThroughOptions()
    .option('-i, --interactive', 'pass stdin on')
    .option('-t, --tty', 'give the command a terminal')
    .option(
      '-e, --env <NAME=value>',
      'environment entry; NAME alone passes the one here (repeatable)',
      collect,
    )
    .option('-w, --workdir <path>', 'working directory')
    .option('-u, --user <user>', 'user to run as')
    .addOption(durationOption('--timeout <duration>', 'end the command after this (exit 124)'))
    .addHelpText(
      'after',
      examples([
        'holdfast exec web -- ls -l /sandbox',
        "holdfast exec web -- sh -c 'echo $HOME; exit 3'    # exits 3",
        'echo hello | holdfast exec -i web -- tee /sandbox/hello',
        'holdfast exec -it web -- bash',
      ]),
    )
    .addHelpText(
      'after',
      "The exit code is the command's own. Ctrl-C is sent to it; the second one leaves (130).\n",
    )
    .action((ref: string, words: string[], options: ExecCliOptions) =>
      run(command, (context) => exec(context, ref, words, options)),
    )
}

async function exec(
  context: Context,
  ref: string,
  words: readonly string[],
  options: ExecCliOptions,
): Promise<number> {
  const argv = commandWords(words)
  if (argv.length === 0) throw new UsageError('No command was given', 'holdfast exec SANDBOX -- COMMAND')
  requireTerminal(context, options.tty === true)
  const client = await context.client()
  const id = await resolveRef(client, ref)
  return attach(context, client, id, {
    command: argv,
    interactive: options.interactive === true,
    tty: options.tty === true,
    ...(options.env === undefined ? {} : { env: parseEnv(options.env, context.io.env) }),
    ...(options.workdir === undefined ? {} : { workingDir: options.workdir }),
    ...(options.user === undefined ? {} : { user: options.user }),
    ...(options.timeout === undefined
      ? {}
      : { timeoutSeconds: Math.max(1, Math.ceil(options.timeout / 1000)) }),
  })
}
