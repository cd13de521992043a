import { styleText } from 'node:util'
import type { Client, Event } from '@holdfast/client'
import { Option } from 'commander'
import type { Context, Define } from '../context.ts'
import { examples } from '../lifecycle.ts'
import { parseCount } from '../parse.ts'
import { resolveRef } from '../refs.ts'
import { plain } from '../render.ts'
import { argument } from '../wait.ts'

interface EventsOptions {
  readonly follow?: boolean
  readonly after?: number
  readonly tail: number
  readonly volume?: string
  readonly output: string
}

export const define: Define = (command, run) => {
  command
    .argument('[sandbox]', 'only of this one')
    .option('-f, --follow', 'go on until Ctrl-C')
    .option('--after <seq>', 'only those after this sequence number', argument(parseCount))
    .option('--tail <count>', 'only the last ones', argument(parseCount), 100)
    .option('--volume <volume>', 'only of this volume')
    .addOption(new Option('-o, --output <format>', 'how to print').choices(['text', 'json']).default('text'))
    .addHelpText(
      'after',
      examples([
        'holdfast events web',
        'holdfast events -f',
        'holdfast events --after 1200 -o json | jq -r .reason',
      ]),
    )
    .addHelpText('after', 'With -o json, one event per line.\n')
    .action((ref: string | undefined, options: EventsOptions) =>
      run(command, (context) => events(context, ref, options)),
    )
}

async function events(context: Context, ref: string | undefined, options: EventsOptions): Promise<number> {
  const client = await context.client()
  const filter = {
    ...(ref === undefined ? {} : { sandbox: await idOf(client, ref) }),
    ...(options.volume === undefined ? {} : { volume: options.volume }),
  }
  const show = (event: Event): void =>
    context.print(options.output === 'json' ? JSON.stringify(event) : eventText(event, context.io.stdout))
  let last = options.after ?? 0
  const recent: Event[] = []
  for await (const event of client.events.list({ ...filter, after: last })) {
    last = event.seq
    recent.push(event)
    if (options.after === undefined && recent.length > options.tail) recent.shift()
  }
  recent.forEach(show)
  if (options.follow !== true) return 0
  for await (const event of client.events.follow({ ...filter, after: last, signal: context.signal }))
    show(event)
  context.signal.throwIfAborted()
  return 0
}

/** The events of a deleted sandbox stay readable by its id, which resolves to nothing any more. */
async function idOf(client: Client, ref: string): Promise<string> {
  try {
    return await resolveRef(client, ref)
  } catch (error) {
    const gone = await client.sandboxes.get(ref, { includeDeleted: true }).catch(() => null)
    if (gone === null) throw error
    return gone.id
  }
}

export function eventText(event: Event, stream: NodeJS.WriteStream): string {
  const head = `${event.at} ${event.subject}/${event.id}`
  const reason = styleText(event.type === 'Warning' ? 'yellow' : 'cyan', plain(event.reason), { stream })
  return `${plain(head)} ${reason} ${plain(event.message)}`
}
