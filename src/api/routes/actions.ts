import { z } from 'zod'
import { fail } from '../../model/errors.ts'
import type { App, Context } from '../context.ts'
import { idempotencyOf, sendCommitted, sendEmpty } from '../idempotency.ts'
import { applyTo, mustFind } from '../intents/apply.ts'
import { commitIntent } from '../intents/commit.ts'
import { refuseWhileHeld } from '../intents/hold.ts'
import * as lifecycle from '../intents/lifecycle.ts'
import { iso } from '../present/time.ts'
import { empty, errorResponses, idParams, timeText, intentHeaders } from '../schemas/common.ts'
import { engineOf } from './shared.ts'

const renewal = z.strictObject({ expiresAt: timeText })

const ACTIONS: Readonly<Record<string, { decide: lifecycle.Decide; summary: string }>> = {
  stop: { decide: lifecycle.stop, summary: 'Stop it; its volumes and its writable layer stay' },
  start: {
    decide: lifecycle.start,
    summary: 'Start it; also from Failed, Lost and Blocked, and from a pause',
  },
  restart: { decide: lifecycle.restart, summary: 'Stop and start its instance' },
  pause: { decide: lifecycle.pause, summary: 'Freeze it' },
  resume: { decide: lifecycle.resume, summary: 'Thaw it; starts a stopped, failed or lost one' },
  recover: { decide: lifecycle.recover, summary: 'Replace an instance that is gone, on the same volumes' },
}

/** One route per wish. All record it and answer; the reconciler fulfils it. */
export function sandboxActionRoutes(app: App, ctx: Context): void {
  const tags = ['sandboxes']
  for (const [action, { decide, summary }] of Object.entries(ACTIONS)) {
    app.post(
      `/sandboxes/:id/${action}`,
      {
        config: { intent: true },
        schema: {
          tags,
          summary,
          headers: intentHeaders,
          params: idParams,
          response: { 202: empty, ...errorResponses },
        },
      },
      async (request, reply) => {
        const committed = await commitIntent(ctx, idempotencyOf(request), async (tx, now) => {
          if (action === 'pause') requirePause(ctx, (await mustFind(tx, request.params.id)).engine)
          const { kicks } = await applyTo(tx, request.params.id, now, decide)
          return { status: 202, body: null, kicks }
        })
        return sendCommitted(reply, committed)
      },
    )
  }

  app.delete(
    '/sandboxes/:id',
    {
      schema: {
        tags,
        summary: 'Delete it, with the volumes that it owns',
        params: idParams,
        response: { 204: empty, ...errorResponses },
      },
    },
    async (request, reply) => {
      await commitIntent(ctx, null, async (tx, now) => {
        const { desired } = await mustFind(tx, request.params.id)
        if (desired !== 'deleted') await refuseWhileHeld(tx, `Sandbox ${request.params.id}`)
        const { kicks } = await applyTo(tx, request.params.id, now, lifecycle.remove)
        return { status: 204, body: null, kicks }
      })
      return sendEmpty(reply, 204)
    },
  )

  app.post(
    '/sandboxes/:id/renew-expiration',
    {
      config: { intent: true },
      schema: {
        headers: intentHeaders,
        tags,
        summary: 'Move its expiry to a later time',
        params: idParams,
        body: renewal,
        response: { 200: renewal, ...errorResponses },
      },
    },
    async (request, reply) => {
      const expiresAt = Date.parse(request.body.expiresAt)
      const committed = await commitIntent(ctx, idempotencyOf(request), async (tx, now) => {
        const { record, kicks } = await applyTo(tx, request.params.id, now, lifecycle.renew(expiresAt))
        return { status: 200, body: { expiresAt: iso(record.expiresAt ?? expiresAt) }, kicks }
      })
      return sendCommitted(reply, committed)
    },
  )
}

function requirePause(ctx: Context, engineId: string): void {
  const engine = engineOf(ctx, engineId)
  if (!engine.capabilities.pause) throw fail('UNSUPPORTED', { what: 'pause a sandbox', engine: engine.id })
}
