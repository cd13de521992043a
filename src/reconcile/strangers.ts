import type { Engine } from '../engines/engine.ts'
import { LABEL, ownership } from '../model/labels.ts'
import type { SandboxRecord } from '../model/records.ts'
import type { Context } from './context.ts'
import { LIST_LIMIT_MS } from './limits.ts'

/**
 * Instances of a sandbox that the store does not know, from the engine itself: while a hold lasts the store may be
 * older than what is there, and the sweep may not have seen it yet.
 */
export async function strangersOn(
  ctx: Context,
  engine: Engine,
  record: SandboxRecord,
): Promise<readonly string[]> {
  const found: string[] = []
  for (const facts of await engine.listInstances({ limitMs: LIST_LIMIT_MS })) {
    const uid = facts.labels[LABEL.uid] ?? ''
    if (facts.labels[LABEL.sandbox] !== record.id || uid === record.instance?.uid) continue
    if (ownership(facts, ctx.store.installation) !== 'ours') continue
    if ((await ctx.store.read((tx) => tx.tombstone(uid))) === null) found.push(facts.name)
  }
  return found
}
