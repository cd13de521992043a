import { Option } from 'commander'
import type { Define } from '../context.ts'
import { examples } from '../lifecycle.ts'
import { json } from '../output.ts'
import { parseDuration, parsePort } from '../parse.ts'
import { resolveRef } from '../refs.ts'
import { argument, durationOption } from '../wait.ts'

interface PortOptions {
  readonly expires: number
  readonly output: string
}

export const define: Define = (command, run) => {
  command
    .argument('<sandbox>', 'name, id or the beginning of one')
    .argument('<port>', 'port inside the sandbox', argument(parsePort))
    .addOption(
      durationOption('--expires <duration>', 'the link opens for this long').default(
        parseDuration('1h'),
        '1h',
      ),
    )
    .addOption(new Option('-o, --output <format>', 'how to print').choices(['text', 'json']).default('text'))
    .addHelpText('after', examples(['holdfast port web 8000', 'xdg-open "$(holdfast port web 8000)"']))
    .addHelpText(
      'after',
      'The link holds a signed token: whoever has it can open the port until it expires.\n',
    )
    .action((ref: string, port: number, options: PortOptions) =>
      run(command, async (context) => {
        const client = await context.client()
        const id = await resolveRef(client, ref)
        const link = await client.sandboxes.link(id, port, Math.max(1, Math.ceil(options.expires / 1000)))
        context.print(options.output === 'json' ? json(link) : link.url)
        return 0
      }),
    )
}
