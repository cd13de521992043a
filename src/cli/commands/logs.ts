import { styleText } from 'node:util'
import type { LogLine } from '@holdfast/client'
import type { Context, Define } from '../context.ts'
import { examples } from '../lifecycle.ts'
import { readLogs } from '../logs.ts'
import { parseCount, parseSince } from '../parse.ts'
import { forEachRef, resolveRef } from '../refs.ts'
import { writeAll } from '../stdio.ts'
import { argument } from '../wait.ts'

interface LogsOptions {
  readonly follow?: boolean
  readonly since?: string
  readonly tail?: number
  readonly timestamps?: boolean
}

export const define: Define = (command, run) => {
  command
    .argument('<sandbox...>', 'names, ids or beginnings of ids')
    .option('-f, --follow', 'go on until the sandbox ends or Ctrl-C')
    .option('--since <when>', 'only newer ones: 10m, or a time as 2026-01-31T12:00:00Z')
    .option('--tail <lines>', 'only the last ones', argument(parseCount))
    .option('-t, --timestamps', 'put the time before each line')
    .addHelpText(
      'after',
      examples([
        'holdfast logs --tail 100 -f web',
        'holdfast logs --since 10m web db',
        'holdfast logs web 2>/dev/null    # its stdout only',
      ]),
    )
    .action((refs: string[], options: LogsOptions) => run(command, (context) => logs(context, refs, options)))
}

function logs(context: Context, refs: readonly string[], options: LogsOptions): Promise<number> {
  const since = options.since === undefined ? undefined : parseSince(options.since, context.io.now())
  const width = Math.max(...refs.map((ref) => ref.length))
  return forEachRef(context, refs, async (ref) => {
    const client = await context.client()
    const id = await resolveRef(client, ref)
    const prefix = refs.length > 1 ? `${ref.padEnd(width)} | ` : ''
    const printer = linePrinter(context, prefix, options.timestamps === true)
    const lines = readLogs(context, client, id, {
      follow: options.follow === true,
      signal: context.signal,
      ...(since === undefined ? {} : { since }),
      ...(options.tail === undefined ? {} : { tail: options.tail }),
    })
    for await (const line of lines) await printer(line)
    context.signal.throwIfAborted()
    return 0
  })
}

/** Prints each piece to the stream it came from: as it is, or with a prefix at the beginning of each line. */
function linePrinter(
  context: Context,
  prefix: string,
  timestamps: boolean,
): (line: LogLine) => Promise<void> {
  const { stdout, stderr } = context.io
  const atStart = { stdout: true, stderr: true }
  return async ({ stream, time, data }) => {
    const target = stream === 'stderr' ? stderr : stdout
    if (prefix === '' && !timestamps) return writeAll(target, data)
    const before = styleText('gray', `${prefix}${timestamps ? `${time ?? '-'} ` : ''}`, { stream: target })
    for (let at = 0; at < data.length;) {
      const newline = data.indexOf(10, at)
      const end = newline < 0 ? data.length : newline + 1
      if (atStart[stream]) await writeAll(target, before)
      await writeAll(target, data.subarray(at, end))
      atStart[stream] = newline >= 0
      at = end
    }
  }
}
