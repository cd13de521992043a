import type { Context, Define } from '../context.ts'
import { attach, requireTerminal } from '../attach.ts'
import { examples } from '../lifecycle.ts'
import { resolveRef } from '../refs.ts'

interface ShellOptions {
  readonly shell?: string
  readonly workdir?: string
  readonly user?: string
}

/** The best shell that the image has. */
export const PICK_SHELL = 'if command -v bash >/dev/null 2>&1; then exec bash -l; else exec sh -l; fi'

export const define: Define = (command, run) => {
  command
    .argument('<sandbox>', 'name, id or the beginning of one')
    .option('-s, --shell <program>', 'shell to start (default: bash where there is one, else sh)')
    .option('-w, --workdir <path>', 'working directory')
    .option('-u, --user <user>', 'user to run as')
    .addHelpText('after', examples(['holdfast shell web', 'holdfast shell -s zsh -w /sandbox web']))
    .action((ref: string, options: ShellOptions) => run(command, (context) => shell(context, ref, options)))
}

async function shell(context: Context, ref: string, options: ShellOptions): Promise<number> {
  requireTerminal(context, true)
  const client = await context.client()
  const id = await resolveRef(client, ref)
  const term = context.io.env['TERM']
  return attach(context, client, id, {
    command: options.shell === undefined ? ['sh', '-c', PICK_SHELL] : [options.shell],
    interactive: true,
    tty: true,
    ...(term === undefined ? {} : { env: { TERM: term } }),
    ...(options.workdir === undefined ? {} : { workingDir: options.workdir }),
    ...(options.user === undefined ? {} : { user: options.user }),
  })
}
