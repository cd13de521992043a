import type { Recovery } from '@holdfast/client'
import { Option } from 'commander'
import type { RebuildResult } from '../../main.ts'
import type { Context, Define } from '../context.ts'
import { inProcess } from '../errors.ts'
import { examples } from '../lifecycle.ts'
import { json } from '../output.ts'
import { UsageError } from '../parse.ts'
import { ago, table, type Column } from '../render.ts'

interface RebuildOptions {
  readonly confirm?: boolean
  readonly dryRun?: boolean
  readonly force?: boolean
  readonly installation?: string
  readonly engine?: string
  readonly isolation?: 'namespaces' | 'none'
  readonly stateDir?: string
  readonly output: 'text' | 'json'
}

export const define: Define = (command, run) => {
  command
    .option('--confirm', 'end the hold after a restore or a rebuild: removals and expiry go on')
    .option('--dry-run', 'show what would be made, and make nothing')
    .option('-f, --force', 'replace a store that can be read; it is kept beside')
    .option('--installation <id>', 'which one, where the engine has objects of several')
    .option('--engine <engine>', 'docker or local (HOLDFAST_ENGINE; default: Docker, if it answers)')
    .option('--state-dir <dir>', 'where the state is made (HOLDFAST_STATE_DIR)')
    .addOption(
      new Option('--isolation <kind>', 'of the local engine').choices(['namespaces', 'none']).hideHelp(),
    )
    .addOption(new Option('-o, --output <format>', 'how to print').choices(['text', 'json']).default('text'))
    .addHelpText(
      'after',
      examples([
        'holdfast rebuild --dry-run',
        'holdfast rebuild && holdfast server',
        'holdfast rebuild --confirm    # after a look at holdfast doctor and holdfast ls',
      ]),
    )
    .addHelpText(
      'after',
      `For when the state directory was lost: sandboxes and volumes come back under their ids, what runs stays running,
and the rest is stopped. After a restore it adds what is newer than the backup. The server must not run, and the engine
is only read. What an engine cannot tell is listed, and set so that nothing is lost. Until --confirm, which is said to
the running server, nothing is removed and nothing expires.
`,
    )
    .action((options: RebuildOptions) => run(command, (context) => rebuild(context, options)))
}

async function rebuild(context: Context, options: RebuildOptions): Promise<number> {
  if (options.confirm === true) {
    const other = (['dryRun', 'force', 'installation', 'engine'] as const).find((name) => options[name])
    if (other !== undefined) throw new UsageError('--confirm goes alone: it is said to the running server')
    return confirm(context, options)
  }
  const { rebuildState } = await import('../../main.ts')
  const { engine, isolation } = options
  const flags = {
    stateDir: options.stateDir ?? context.connection().stateDir,
    ...(engine === undefined ? {} : { engine }),
    ...(isolation === undefined ? {} : { isolation }),
  }
  const result = await inProcess(() =>
    rebuildState({
      flags,
      installation: options.installation ?? null,
      dryRun: options.dryRun === true,
      force: options.force === true,
    }),
  )
  if (options.output === 'json') context.print(json(summary(result)))
  else show(context, result)
  return 0
}

type Row = RebuildResult['sandboxes'][number]

const COLUMNS: readonly Column<Row>[] = [
  { header: 'SANDBOX', value: (r) => r.record.id },
  { header: 'WANTED', value: (r) => r.record.desired },
  { header: 'IMAGE', value: (r) => r.record.spec.image },
  { header: 'INSTANCE', value: (r) => r.instance.name },
  {
    header: 'MOUNTS',
    value: (r) => [...r.record.spec.mounts, ...r.record.imageMounts].map((m) => m.path).join(','),
  },
  { header: 'SPEC', value: (r) => (r.exact ? 'exact' : 'as the engine tells') },
]

function show(context: Context, result: RebuildResult): void {
  const { sandboxes, volumes, left, kept, merged, how } = result
  context.print(table(sandboxes, COLUMNS, true, context.io.stdout))
  for (const { record, notes } of sandboxes) for (const n of notes) context.note(`${record.id}: ${n}`)
  for (const { kind, name, why } of left) context.note(`${kind} ${name} is left alone: ${why}`)
  const retained = volumes.filter((v) => v.retention === 'retain').length
  context.note(
    `Installation ${result.installation} on ${result.engine}: ${sandboxes.length} sandboxes, ${volumes.length} volumes (${retained} retained).`,
  )
  context.note(`Unknown, and set so that nothing is lost: ${result.unknown.join('; ')}.`)
  if (how === 'dry-run') {
    context.note('Nothing was made. Without --dry-run it is.')
    return
  }
  if (kept !== null) context.note(`The former store is kept in ${kept}.`)
  if (merged !== null)
    context.note(
      `Taken over: ${merged.added.length} sandboxes, ${merged.renewed.length} newer instances, ${merged.volumes.length} volumes; what the store knew stays.`,
    )
  context.note(
    'Removals and expiry are held. Next: holdfast server, holdfast doctor, and then: holdfast rebuild --confirm',
  )
}

function summary(result: RebuildResult): object {
  const { sandboxes, ...rest } = result
  return {
    ...rest,
    sandboxes: sandboxes.map(({ record, instance, exact, notes }) => ({
      id: record.id,
      desired: record.desired,
      image: record.spec.image,
      instance: instance.name,
      engineId: instance.engineId,
      startedAt: instance.startedAt,
      exact,
      notes,
    })),
  }
}

const WAITING: readonly Column<Recovery['waiting'][number]>[] = [
  { header: 'SANDBOX', value: (w) => w.name ?? w.id },
  { header: 'NOW', value: (w) => w.what },
]

/** Says to the server that the store is to be believed; what follows from that is printed. */
async function confirm(context: Context, options: RebuildOptions): Promise<number> {
  const client = await context.client()
  const before = await client.recovery()
  const { lifted } = await client.confirmRecovery()
  if (options.output === 'json') {
    context.print(json({ lifted, waiting: before.waiting, quarantine: before.quarantine }))
    return 0
  }
  if (lifted === null) {
    context.note('Nothing was held.')
    return 0
  }
  if (before.waiting.length > 0) context.print(table(before.waiting, WAITING, true, context.io.stdout))
  context.note(`The hold of ${ago(lifted.since, context.io.now())} is over: removals and expiry go on.`)
  if (before.quarantine.length > 0)
    context.note(
      `${before.quarantine.length} objects that no row knows stay on the engine until you remove them: holdfast audit`,
    )
  return 0
}
