import { ApiError, type Client } from '@holdfast/client'
import type { Context, Define } from '../context.ts'
import { examples } from '../lifecycle.ts'
import { forEachRef, resolveRef } from '../refs.ts'
import { goals, waitFor, waitOptions, type WaitOptions } from '../wait.ts'

interface RmOptions extends WaitOptions {
  readonly force?: boolean
}

export const define: Define = (command, run) => {
  waitOptions(command.argument('<sandbox...>', 'names, ids or beginnings of ids'))
    .option('-f, --force', 'a sandbox that does not exist is no error')
    .addHelpText(
      'after',
      examples([
        'holdfast rm web',
        'holdfast rm -f web    # also fine when there is none',
        'holdfast rm $(holdfast ls -q)    # every sandbox; volumes that are to be kept stay',
      ]),
    )
    .action((refs: string[], options: RmOptions) =>
      run(command, (context) => forEachRef(context, refs, (ref) => removeOne(context, ref, options))),
    )
}

async function removeOne(context: Context, ref: string, options: RmOptions): Promise<number> {
  const client = await context.client()
  const id = await findIt(client, ref, options.force === true)
  if (id === null) return 0
  await client.sandboxes.remove(id)
  if (options.wait) await waitFor(context, client, id, ref, goals.deleted, options.timeout)
  context.print(ref)
  return 0
}

async function findIt(client: Client, ref: string, missingIsFine: boolean): Promise<string | null> {
  try {
    return await resolveRef(client, ref)
  } catch (error) {
    if (missingIsFine && error instanceof ApiError && error.status === 404) return null
    throw error
  }
}
