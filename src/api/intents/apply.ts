import { fail } from '../../model/errors.ts'
import type { SandboxRecord } from '../../model/records.ts'
import { sandboxKey } from '../../reconcile/controller.ts'
import type { ReadTx, WriteTx } from '../../store/store.ts'
import { CasLost } from './commit.ts'
import type { Decide } from './lifecycle.ts'

/** The row, or 404: a finished delete is gone for everybody who does not ask for tombstones. */
export async function mustFind(tx: ReadTx, id: string, includeDeleted = false): Promise<SandboxRecord> {
  const record = await tx.sandbox(id)
  if (record === null || (record.deletedAt !== null && !includeDeleted))
    throw fail('SANDBOX::NOT_FOUND', { id })
  return record
}

/** Writes what `decide` makes of the record, with its event; answers the record as it is now, and the keys to look at. */
export async function applyTo(
  tx: WriteTx,
  id: string,
  now: number,
  decide: Decide,
): Promise<{ record: SandboxRecord; kicks: readonly string[] }> {
  const record = await mustFind(tx, id)
  const change = decide(record, now)
  // Even an intent that changes nothing is worth a look: the caller believes that something is not as it should be.
  if (change === null) return { record, kicks: [sandboxKey(id)] }
  if (!(await tx.updateSandbox(change.record))) throw new CasLost()
  await tx.appendEvent(change.event, now)
  return { record: { ...change.record, version: change.record.version + 1 }, kicks: [sandboxKey(id)] }
}
