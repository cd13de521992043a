import type { ReadTx } from '../../store/store.ts'
import type { App, Context } from '../context.ts'
import { liftHold } from '../intents/hold.ts'
import { holdBody } from '../present/hold.ts'
import { iso } from '../present/time.ts'
import { errorResponses } from '../schemas/common.ts'
import { confirmedWire, recoveryWire, type RecoveryWire } from '../schemas/operations.ts'

/** What goes on, or goes, once the hold ends: what a person confirms. */
async function recovery(tx: ReadTx, now: number): Promise<RecoveryWire> {
  const { items } = await tx.sandboxes({})
  const expired = new Set((await tx.sandboxesExpiredAt(now)).map((r) => r.id))
  const waiting = items.flatMap((r) => {
    const what = expired.has(r.id)
      ? 'expires'
      : r.desired === 'deleted'
        ? 'is deleted'
        : r.status.reason === 'Held'
          ? `becomes ${r.desired}`
          : r.status.reason === 'NewerInstance' || r.status.phase === 'Lost'
            ? 'stays as it is until you act'
            : null
    return what === null ? [] : [{ id: r.id, name: r.name, what, message: r.status.message }]
  })
  return {
    hold: holdBody(await tx.hold()),
    waiting,
    quarantine: (await tx.quarantine()).map((q) => ({
      engine: q.engine,
      kind: q.kind,
      name: q.name,
      engineId: q.engineId,
      firstSeenAt: iso(q.firstSeenAt),
    })),
    unreadable: (await tx.corruptRows()).map((row) => ({ ...row })),
  }
}

/** After a loss: what is held, and the one way to end it. */
export function recoveryRoutes(app: App, ctx: Context): void {
  const tags = ['operations']
  app.get(
    '/recovery',
    {
      schema: {
        tags,
        summary: 'Whether removals are held, and what is not as it should be in the store',
        response: { 200: recoveryWire, ...errorResponses },
      },
    },
    () => ctx.store.read((tx) => recovery(tx, ctx.clock.now())),
  )

  app.post(
    '/recovery/confirm',
    {
      schema: {
        tags,
        summary: 'End the hold after a restore or a rebuild: removals and expiry go on',
        response: { 200: confirmedWire, ...errorResponses },
      },
    },
    async () => ({ lifted: holdBody(await liftHold(ctx)) }),
  )
}
