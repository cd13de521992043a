import { Option } from 'commander'
import {
  checkDisk,
  checkEngines,
  checkLock,
  checkRuntime,
  checkServer,
  checkStateDir,
  type Check,
} from '../checks.ts'
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
    .addHelpText('after', examples(['holdfast doctor']))
    .addHelpText('after', 'Exit 5 when no server answers, 1 when something else is wrong. Changes nothing.\n')
    .action((options: { output: string }) => run(command, (context) => doctor(context, options)))
}

const STYLES = { ok: 'green', note: 'yellow', fail: 'red' } as const

const COLUMNS: readonly Column<Check>[] = [
  { header: 'CHECK', value: (c) => c.name },
  { header: 'VERDICT', value: (c) => c.verdict, style: (c) => STYLES[c.verdict] },
  { header: 'DETAIL', value: (c) => c.detail },
]

async function doctor(context: Context, options: { output: string }): Promise<number> {
  const { io } = context
  const connection = context.connection()
  const server = await checkServer(connection, await context.client())
  const engines = await checkEngines({ env: io.env, uid: process.getuid?.() ?? -1 })
  const checks: Check[] = [
    checkRuntime(process.version),
    checkStateDir(connection.stateDir),
    checkDisk(connection.stateDir),
    checkLock(connection.stateDir),
    ...engines,
    ...server.checks,
  ]
  context.print(options.output === 'json' ? json(checks) : table(checks, COLUMNS, true, io.stdout))
  if (server.exitCode !== 0) return server.exitCode
  return checks.some((c) => c.verdict === 'fail') ? EXIT.failed : EXIT.ok
}
