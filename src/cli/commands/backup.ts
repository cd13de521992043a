import { Option } from 'commander'
import type { Context, Define } from '../context.ts'
import { inProcess } from '../errors.ts'
import { examples } from '../lifecycle.ts'
import { json } from '../output.ts'
import { bytes } from '../render.ts'

interface BackupOptions {
  readonly force?: boolean
  readonly stateDir?: string
  readonly output: 'text' | 'json'
}

export const define: Define = (command, run) => {
  command
    .argument('<file|directory>', 'where to; in a directory a name is chosen')
    .option('-f, --force', 'replace a file that is there')
    .option('--state-dir <dir>', 'the state to back up (HOLDFAST_STATE_DIR)')
    .addOption(new Option('-o, --output <format>', 'how to print').choices(['text', 'json']).default('text'))
    .addHelpText(
      'after',
      examples([
        'holdfast backup /var/backups/',
        'holdfast backup before-upgrade.tar && holdfast restore --help',
      ]),
    )
    .addHelpText(
      'after',
      `Works while the server runs and while it does not, and changes nothing. The file holds what Holdfast knows and the
keys it needs, so keep it as you keep those; what is in the sandboxes' volumes is not in it. It is read back and
checked before it appears under its name.
`,
    )
    .action((target: string, options: BackupOptions) =>
      run(command, (context) => backup(context, target, options)),
    )
}

async function backup(context: Context, target: string, options: BackupOptions): Promise<number> {
  const stateDir = options.stateDir ?? context.connection().stateDir
  const { backupState } = await import('../../main.ts')
  const made = await inProcess(() => backupState({ stateDir, target, force: options.force === true }))
  if (options.output === 'json') {
    context.print(json(made))
    return 0
  }
  const { manifest } = made
  context.print(made.path)
  context.note(
    `${bytes(made.bytes)}, checked: ${manifest.sandboxes} sandboxes and ${manifest.volumes} volumes of installation ${manifest.installation}, up to event ${manifest.lastEventSeq} (schema version ${manifest.schemaVersion}).`,
  )
  return 0
}
