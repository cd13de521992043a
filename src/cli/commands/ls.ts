import type { Sandbox } from '@holdfast/client'
import type { Context, Define } from '../context.ts'
import { examples } from '../lifecycle.ts'
import { outputOptions, printList, type Listing, type OutputOptions } from '../output.ts'
import { collect, parsePairs } from '../parse.ts'
import { ago, stateStyle, until, type Column } from '../render.ts'

interface LsOptions extends OutputOptions {
  readonly state?: string[]
  readonly label?: string[]
  readonly all?: boolean
}

export const define: Define = (command, run) => {
  outputOptions(
    command
      .option('-a, --all', 'deleted ones too')
      .option('-s, --state <state>', 'only in this state, as Running or lost (repeatable)', collect)
      .option('-l, --label <key=value>', 'only with this label (repeatable, all must fit)', collect),
  )
    .addHelpText(
      'after',
      examples([
        'holdfast ls',
        'holdfast ls -s Lost -s Blocked -o wide',
        'holdfast rm $(holdfast ls -q -l team=ci)',
      ]),
    )
    .action((options: LsOptions) => run(command, (context) => ls(context, options)))
}

async function ls(context: Context, options: LsOptions): Promise<number> {
  const metadata = options.label === undefined ? undefined : parsePairs(options.label, 'label')
  const client = await context.client()
  const rows = await client.sandboxes.list({
    ...(options.state === undefined ? {} : { state: options.state }),
    ...(metadata === undefined ? {} : { metadata }),
    ...(options.all === true ? { includeDeleted: true } : {}),
  })
  printList(context, rows, sandboxListing(context.io.now()), options)
  return 0
}

/** A deleted sandbox keeps its last state; the column says that it is gone. */
const shownState = (s: Sandbox): string => (s.deletedAt === null ? s.status.state : 'Deleted')

export function sandboxListing(now: number): Listing<Sandbox> {
  const columns: Column<Sandbox>[] = [
    { header: 'ID', value: (s) => s.id },
    { header: 'NAME', value: (s) => s.name ?? '' },
    {
      header: 'STATE',
      value: shownState,
      style: (s) => (s.deletedAt === null ? stateStyle(s.status.state) : 'gray'),
    },
    { header: 'IMAGE', value: (s) => s.image.uri },
    { header: 'AGE', value: (s) => ago(s.createdAt, now) },
    { header: 'EXPIRES', value: (s) => until(s.expiresAt, now) },
    { header: 'RESTART', value: (s) => s.restartPolicy, wide: true },
    { header: 'EXIT', value: (s) => (s.lastExit?.code == null ? '' : String(s.lastExit.code)), wide: true },
    { header: 'ENGINE', value: (s) => s.engine, wide: true },
    { header: 'INSTANCE', value: (s) => s.instance?.name ?? '', wide: true },
    { header: 'MESSAGE', value: (s) => s.status.message, wide: true },
  ]
  return { columns, id: (s) => s.id, name: (s) => s.name ?? s.id }
}
