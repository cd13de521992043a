import { Option } from 'commander'
import type { Context, Define } from '../context.ts'
import { inProcess } from '../errors.ts'
import { examples } from '../lifecycle.ts'
import { json } from '../output.ts'

interface RestoreOptions {
  readonly force?: boolean
  readonly stateDir?: string
  readonly output: 'text' | 'json'
}

export const define: Define = (command, run) => {
  command
    .argument('<file>', 'a file that `holdfast backup` wrote')
    .option('-f, --force', 'replace the store that is there; it is kept beside')
    .option('--state-dir <dir>', 'where to (HOLDFAST_STATE_DIR)')
    .addOption(new Option('-o, --output <format>', 'how to print').choices(['text', 'json']).default('text'))
    .addHelpText(
      'after',
      examples([
        'holdfast restore /var/backups/holdfast-k3x….tar',
        'holdfast restore --force backup.tar && holdfast server',
      ]),
    )
    .addHelpText(
      'after',
      `The server must not run (exit 4). Afterwards start it: what runs goes on running, objects that are newer than the
backup are listed and left alone, and nothing is removed and nothing expires until you have looked at it
(holdfast doctor, holdfast audit) and said: holdfast rebuild --confirm
`,
    )
    .action((source: string, options: RestoreOptions) =>
      run(command, (context) => restore(context, source, options)),
    )
}

async function restore(context: Context, source: string, options: RestoreOptions): Promise<number> {
  const stateDir = options.stateDir ?? context.connection().stateDir
  const { restoreState } = await import('../../main.ts')
  const done = await inProcess(() => restoreState({ stateDir, source, force: options.force === true }))
  if (options.output === 'json') {
    context.print(json({ stateDir, ...done }))
    return 0
  }
  const { manifest } = done
  context.print(stateDir)
  context.note(
    `Restored: ${manifest.sandboxes} sandboxes and ${manifest.volumes} volumes of installation ${manifest.installation}, as they were at ${manifest.createdAt}.`,
  )
  if (done.kept !== null) context.note(`The former store is kept in ${done.kept}.`)
  context.note(
    'Removals and expiry are held. Next: holdfast server, holdfast doctor, and then: holdfast rebuild --confirm',
  )
  return 0
}
