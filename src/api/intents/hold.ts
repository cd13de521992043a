import { fail } from '../../model/errors.ts'
import { HOLD_LIFTED, HOLD_META, holdCause, type Hold } from '../../model/hold.ts'
import { sweepKey } from '../../model/keys.ts'
import type { ReadTx } from '../../store/store.ts'
import type { ApiDeps } from '../deps.ts'
import { iso } from '../present/time.ts'
import { commitIntent } from './commit.ts'

/**
 * Refuses a removal while one holds, instead of recording it: whoever asks is told at once what to do first, and no
 * wish to remove lies in wait for the moment when the hold ends.
 */
export async function refuseWhileHeld(tx: ReadTx, id: string): Promise<void> {
  const hold = await tx.hold()
  if (hold !== null) throw heldError(id, hold)
}

function heldError(id: string, hold: Hold): Error {
  return fail('REMOVALS_HELD', { id, cause: holdCause(hold), since: iso(hold.since) })
}

type Deps = Pick<ApiDeps, 'store' | 'controller' | 'clock' | 'engines'>

/**
 * Ends the hold, which is a person's to say. Answers what it was; null when nothing held. Refused until every engine
 * was looked at since the start: only then is it known what the store does not know.
 */
export async function liftHold(deps: Deps): Promise<Hold | null> {
  const away = deps.engines.all().find((e) => !deps.engines.health(e.id).ok)
  if (!deps.controller.surveyed || away !== undefined) {
    for (const engine of deps.engines.all()) deps.controller.kick(sweepKey(engine.id))
    const detail = `the engine ${away?.id ?? deps.engines.defaultId} has not been looked at yet, so nobody knows what the store lacks`
    throw fail('SERVICE_UNAVAILABLE', { detail })
  }
  let lifted: Hold | null = null
  await commitIntent(deps, null, async (tx, now) => {
    lifted = await tx.hold()
    if (lifted === null) return { status: 200, body: null, kicks: [] }
    await tx.setMeta(HOLD_META, HOLD_LIFTED)
    const message = `A person confirmed the store as it is (${holdCause(lifted)}): removals and expiry go on.`
    await tx.appendEvent(
      { subject: 'server', id: 'store', type: 'Normal', reason: 'HoldLifted', message },
      now,
    )
    return { status: 200, body: null, kicks: deps.engines.all().map((e) => sweepKey(e.id)) }
  })
  return lifted
}
