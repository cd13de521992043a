import type { CreateVolume, Volume } from '@holdfast/client'
import { Option, type Command } from 'commander'
import type { Context, Define, Run } from '../context.ts'
import { examples } from '../lifecycle.ts'
import { json, outputOptions, printList, type Listing, type OutputOptions } from '../output.ts'
import { parseSize } from '../parse.ts'
import { forEachRef } from '../refs.ts'
import { ago, bytes, type Column } from '../render.ts'
import { argument, waitOptions, type WaitOptions } from '../wait.ts'
import { waitUntilPurged } from '../volumes.ts'

export const define: Define = (command, run) => {
  command.addHelpText(
    'after',
    examples(['holdfast volume create site', 'holdfast volume ls', 'holdfast volume rm site']),
  )
  defineCreate(command.command('create').description('make a volume ahead of its use'), run)
  defineList(command.command('ls').alias('list').description('list volumes'), run)
  defineInspect(command.command('inspect').description('show a volume with everything known about it'), run)
  defineRemove(
    command.command('rm').alias('remove').description('remove a volume and its data, for good'),
    run,
  )
}

interface CreateOptions extends OutputOptions {
  readonly shared?: boolean
  readonly size?: string
  readonly retention?: 'retain' | 'delete'
}

function defineCreate(command: Command, run: Run): void {
  outputOptions(command.argument('<name>', 'claim name, under which sandboxes mount it'))
    .option('--shared', 'several sandboxes may write it at once')
    .option('--size <size>', 'size, as 1Gi, where the engine can keep to one', argument(parseSize))
    .addOption(
      new Option('--retention <retention>', 'what becomes of it with its sandbox').choices([
        'retain',
        'delete',
      ]),
    )
    .addHelpText(
      'after',
      examples(['holdfast volume create site', 'holdfast volume create --shared --size 5Gi cache']),
    )
    .action((claimName: string, options: CreateOptions) =>
      run(command, async (context) => {
        const body: CreateVolume = {
          claimName,
          ...(options.shared === true ? { shared: true } : {}),
          ...(options.size === undefined ? {} : { storage: options.size }),
          ...(options.retention === undefined ? {} : { retention: options.retention }),
        }
        const made = await (await context.client()).volumes.create(body)
        if (options.output === 'json') context.print(json(made))
        else context.print(options.quiet === true ? made.uid : made.claimName)
        for (const what of made.notEnforced)
          context.note(`${made.claimName}: not enforced by this engine: ${what}`)
        return 0
      }),
    )
}

interface ListOptions extends OutputOptions {
  readonly all?: boolean
}

function defineList(command: Command, run: Run): void {
  outputOptions(command.option('-a, --all', 'removed ones too'))
    .addHelpText('after', examples(['holdfast volume ls -o wide', 'holdfast volume ls -q']))
    .action((options: ListOptions) =>
      run(command, async (context) => {
        const client = await context.client()
        const rows = await client.volumes.list(options.all === true ? { includeRemoved: true } : {})
        printList(context, rows, listing(context.io.now()), options)
        return 0
      }),
    )
}

function listing(now: number): Listing<Volume> {
  const columns: Column<Volume>[] = [
    { header: 'NAME', value: (v) => v.claimName },
    { header: 'UID', value: (v) => v.uid },
    { header: 'STATE', value: (v) => v.state },
    { header: 'KIND', value: (v) => v.kind },
    { header: 'RETENTION', value: (v) => (v.managed ? v.retention : 'not ours') },
    { header: 'MOUNTED BY', value: (v) => v.mountedBy.join(',') },
    { header: 'AGE', value: (v) => ago(v.createdAt, now) },
    { header: 'OWNER', value: (v) => v.owner ?? '', wide: true },
    { header: 'SHARED', value: (v) => (v.shared ? 'yes' : 'no'), wide: true },
    { header: 'SIZE', value: (v) => bytes(v.sizeBytes), wide: true },
    { header: 'ENGINE NAME', value: (v) => v.physicalName, wide: true },
    { header: 'MESSAGE', value: (v) => v.message, wide: true },
  ]
  return { columns, id: (v) => v.uid, name: (v) => v.claimName }
}

function defineInspect(command: Command, run: Run): void {
  outputOptions(command.argument('<volume...>', 'claim names or uids'))
    .addHelpText('after', examples(['holdfast volume inspect site']))
    .action((refs: string[], options: OutputOptions) =>
      run(command, (context) => inspect(context, refs, options)),
    )
}

async function inspect(context: Context, refs: readonly string[], options: OutputOptions): Promise<number> {
  const client = await context.client()
  const found = new Map<string, Volume>()
  const code = await forEachRef(context, refs, async (ref) => {
    found.set(ref, await client.volumes.get(ref))
    return 0
  })
  const rows = refs.flatMap((ref) => found.get(ref) ?? [])
  const asJson = options.quiet !== true && (options.output === undefined || options.output === 'json')
  if (!asJson) printList(context, rows, listing(context.io.now()), options)
  else if (refs.length > 1) context.print(json(rows))
  else if (rows[0] !== undefined) context.print(json(rows[0]))
  return code
}

function defineRemove(command: Command, run: Run): void {
  waitOptions(command.argument('<volume...>', 'claim names or uids'))
    .addHelpText('after', examples(['holdfast volume rm site']))
    .addHelpText(
      'after',
      'The data is gone afterwards. A volume that a sandbox mounts is refused (exit 4).\n',
    )
    .action((refs: string[], options: WaitOptions) =>
      run(command, (context) =>
        forEachRef(context, refs, async (ref) => {
          const client = await context.client()
          const { uid } = await client.volumes.remove(ref)
          if (options.wait) await waitUntilPurged(context, client, uid, ref, options.timeout)
          context.print(ref)
          return 0
        }),
      ),
    )
}
