import { HoldfastError } from '../model/errors.ts'
import { mayExpire } from '../plan/hold.ts'
import { readClock, trustClock, type ClockTrust } from '../plan/expiry.ts'
import type { Context } from './context.ts'
import { sandboxKey } from './controller.ts'

/** Finds expired sandboxes in the store, never in timers, so that it works after any downtime. */
export function createExpiry(ctx: Context): { tick(): Promise<void> } {
  let trust: ClockTrust = trustClock(ctx.clock.now(), ctx.clock.monotonic())

  async function tick(): Promise<void> {
    const reading = readClock(trust, ctx.clock.now(), ctx.clock.monotonic())
    trust = reading.trust
    if (!reading.mayExpire) return
    const due = await ctx.store.read(async (tx) =>
      mayExpire(reading.mayExpire, await tx.hold()) ? tx.sandboxesExpiredAt(ctx.clock.now()) : [],
    )
    for (const { id } of due) {
      try {
        await expire(id)
      } catch (error) {
        // One row that cannot be written must not keep the others alive past their time.
        if (error instanceof HoldfastError && error.code === 'FENCED') throw error
        ctx.log.error(
          { sandbox: id, error: error instanceof Error ? error.message : String(error) },
          'expiry failed',
        )
      }
    }
  }

  /** Compare-and-set on the row: a renewal that came first wins. */
  async function expire(id: string): Promise<void> {
    const done = await ctx.store.write(true, async (tx) => {
      const now = ctx.clock.now()
      const record = await tx.sandbox(id)
      if (
        record === null ||
        record.desired === 'deleted' ||
        record.expiresAt === null ||
        record.expiresAt > now
      )
        return false
      const next = {
        ...record,
        desired: 'deleted',
        desiredReason: 'expiry',
        desiredAt: now,
        backoff: null,
        updatedAt: now,
        generation: record.generation + 1,
      } as const
      if (!(await tx.updateSandbox(next))) return false
      await tx.appendEvent(
        {
          subject: 'sandbox',
          id,
          type: 'Normal',
          reason: 'Expired',
          message: `Its time was up at ${new Date(record.expiresAt).toISOString()}.`,
        },
        now,
      )
      return true
    })
    if (!done) return
    ctx.hooks.committed?.()
    ctx.kick(sandboxKey(id))
  }

  return { tick }
}
