import type { Define } from '../context.ts'
import { examples } from '../lifecycle.ts'
import { parseTime, UsageError } from '../parse.ts'
import { forEachRef, resolveRef } from '../refs.ts'
import { argument, durationOption } from '../wait.ts'

interface RenewOptions {
  readonly for?: number
  readonly until?: string
}

export const define: Define = (command, run) => {
  command
    .argument('<sandbox...>', 'names, ids or beginnings of ids')
    .addOption(durationOption('--for <duration>', 'expire this long from now'))
    .option('--until <time>', 'expire at this time', argument(parseTime))
    .addHelpText(
      'after',
      examples(['holdfast renew --for 2h web', 'holdfast renew --until 2026-12-31T23:59:59Z web']),
    )
    .action((refs: string[], options: RenewOptions) =>
      run(command, (context) => {
        const expiresAt = expiryOf(options, context.io.now())
        return forEachRef(context, refs, async (ref) => {
          const client = await context.client()
          const renewed = await client.sandboxes.renew(await resolveRef(client, ref), expiresAt)
          context.print(`${ref} expires at ${renewed.expiresAt}`)
          return 0
        })
      }),
    )
}

export function expiryOf(options: RenewOptions, now: number): string {
  if ((options.for === undefined) === (options.until === undefined)) {
    throw new UsageError('Give either --for or --until', 'holdfast renew --for 2h SANDBOX')
  }
  return options.until ?? new Date(now + (options.for ?? 0)).toISOString()
}
