import { Option, type Command } from 'commander'
import type { Context } from './context.ts'
import { table, type Column } from './render.ts'

export type Format = 'table' | 'wide' | 'json' | 'name'

export interface OutputOptions {
  readonly output?: Format
  readonly quiet?: boolean
}

export function outputOptions(command: Command): Command {
  return command
    .addOption(new Option('-o, --output <format>', 'how to print').choices(['table', 'wide', 'json', 'name']))
    .option('-q, --quiet', 'print ids only')
}

export const json = (value: unknown): string => JSON.stringify(value, null, 2)

export interface Listing<T> {
  readonly columns: readonly Column<T>[]
  readonly id: (row: T) => string
  readonly name: (row: T) => string
}

/** Prints a list in the format asked for. An empty table is its header alone, so that `wc -l` and eyes agree. */
export function printList<T>(
  context: Context,
  rows: readonly T[],
  listing: Listing<T>,
  options: OutputOptions,
): void {
  const ids = options.quiet === true ? listing.id : options.output === 'name' ? listing.name : null
  if (ids !== null) {
    for (const row of rows) context.print(ids(row))
  } else if (options.output === 'json') {
    context.print(json(rows))
  } else {
    context.print(table(rows, listing.columns, options.output === 'wide', context.io.stdout))
  }
}
