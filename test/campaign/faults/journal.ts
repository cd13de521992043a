import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as delay } from 'node:timers/promises'
import type { StepKind } from '../../../src/model/records.ts'

const LOOK_EVERY_MS = 2

export interface OpenRow {
  readonly id: number
  readonly kind: StepKind
  readonly key: string
}

/** The journal of a server that runs, read from outside without a lock that it would feel. */
export interface Journal {
  open(): readonly OpenRow[]
  /** The first rows of this kind that are open. Rejects after the limit. */
  whenOpen(kind: StepKind, limitMs: number): Promise<readonly OpenRow[]>
  close(): void
}

export function readJournal(stateDir: string): Journal {
  const db = new DatabaseSync(join(stateDir, 'holdfast.db'), { readOnly: true, timeout: 1_000 })
  const select = db.prepare(
    "SELECT id, key, json_extract(step, '$.kind') AS kind FROM journal WHERE state = 'open'",
  )
  const open = (): OpenRow[] =>
    select.all().map((row) => ({
      id: Number(row['id']),
      kind: String(row['kind']) as StepKind,
      key: String(row['key']),
    }))
  return {
    open,
    async whenOpen(kind, limitMs) {
      const end = performance.now() + limitMs
      for (;;) {
        const found = open().filter((row) => row.kind === kind)
        if (found.length > 0) return found
        if (performance.now() > end) throw new Error(`no ${kind} was open within ${limitMs} ms`)
        await delay(LOOK_EVERY_MS)
      }
    },
    close: () => db.close(),
  }
}
