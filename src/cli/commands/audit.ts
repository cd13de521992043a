import { styleText } from 'node:util'
import type { Audit, Finding } from '@holdfast/client'
import { Option } from 'commander'
import type { Context, Define } from '../context.ts'
import { EXIT } from '../errors.ts'
import { examples } from '../lifecycle.ts'
import { json } from '../output.ts'
import { table, type Column } from '../render.ts'

export const define: Define = (command, run) => {
  command
    .addOption(
      new Option('-o, --output <format>', 'how to print').choices(['table', 'json']).default('table'),
    )
    .addHelpText('after', examples(['holdfast audit', 'holdfast audit -o json | jq .counts']))
    .addHelpText(
      'after',
      "Compares the engine's objects with what Holdfast knows, both ways. Exit 1 when they differ. Removes nothing.\n",
    )
    .action((options: { output: string }) =>
      run(command, async (context) => {
        const audit = await (await context.client()).audit()
        context.print(options.output === 'json' ? json(audit) : auditText(context.io.stdout, audit))
        return audit.ok ? EXIT.ok : EXIT.failed
      }),
    )
}

const COLUMNS: readonly Column<Finding>[] = [
  { header: 'KIND', value: (f) => f.kind, style: () => 'yellow' },
  { header: 'NAME', value: (f) => f.name },
  { header: 'DETAIL', value: (f) => f.detail },
]

/** `openSteps` as words. */
const words = (key: string): string => key.replaceAll(/[A-Z]/g, (c) => ` ${c.toLowerCase()}`)

export function auditText(stream: Context['io']['stdout'], audit: Audit): string {
  const counts = Object.entries(audit.counts)
    .map(([key, count]) => `${count} ${words(key)}`)
    .join(', ')
  const verdict = audit.ok
    ? styleText('green', 'clean', { stream })
    : styleText('red', `${audit.findings.length} found`, { stream })
  const held = audit.held === null ? '' : `\nNothing is removed: ${audit.held}. See holdfast doctor.`
  const head = `${audit.engine}: ${verdict} (${counts})${held}`
  return audit.findings.length === 0 ? head : `${head}\n${table(audit.findings, COLUMNS, true, stream)}`
}
