import type { Sandbox } from '@holdfast/client'
import type { Context, Define } from '../context.ts'
import { examples } from '../lifecycle.ts'
import { json, outputOptions, printList, type OutputOptions } from '../output.ts'
import { forEachRef, resolveRef } from '../refs.ts'
import { sandboxListing } from './ls.ts'

interface InspectOptions extends OutputOptions {
  readonly all?: boolean
}

export const define: Define = (command, run) => {
  outputOptions(command.argument('<sandbox...>', 'names, ids or beginnings of ids'))
    .option('-a, --all', 'also what is left of a deleted one (needs its whole id)')
    .addHelpText(
      'after',
      examples([
        'holdfast inspect web',
        'holdfast inspect web | jq .volumes',
        'holdfast inspect -o wide web db',
      ]),
    )
    .addHelpText('after', 'Prints JSON: an object for one sandbox, a list for several.\n')
    .action((refs: string[], options: InspectOptions) =>
      run(command, (context) => inspect(context, refs, options)),
    )
}

async function inspect(context: Context, refs: readonly string[], options: InspectOptions): Promise<number> {
  const client = await context.client()
  const found = new Map<string, Sandbox>()
  const code = await forEachRef(context, refs, async (ref) => {
    const includeDeleted = options.all === true
    const id = includeDeleted ? await resolveRef(client, ref).catch(() => ref) : await resolveRef(client, ref)
    found.set(ref, await client.sandboxes.get(id, includeDeleted ? { includeDeleted } : {}))
    return 0
  })
  const rows = refs.flatMap((ref) => found.get(ref) ?? [])
  const asJson = options.quiet !== true && (options.output === undefined || options.output === 'json')
  if (!asJson) printList(context, rows, sandboxListing(context.io.now()), options)
  else if (refs.length > 1) context.print(json(rows))
  else if (rows[0] !== undefined) context.print(json(rows[0]))
  return code
}
