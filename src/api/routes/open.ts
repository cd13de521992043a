import { z } from 'zod'
import type { App, Context } from '../context.ts'

const health = z.object({ status: z.literal('ok') })
const ready = z.object({ ready: z.boolean(), engine: z.string(), engineOk: z.boolean() })

/** What answers without a key: liveness, readiness and the documents. */
export function openRoutes(app: App, ctx: Context): void {
  const config = { open: true }
  const tags = ['operations']
  const security: Record<string, string[]>[] = []
  for (const prefix of ['', '/v1']) {
    const hide = prefix !== ''
    app.get(
      `${prefix}/health`,
      {
        config,
        schema: { tags, security, hide, summary: 'Whether the process answers', response: { 200: health } },
      },
      async () => ({ status: 'ok' as const }),
    )
    app.get(
      `${prefix}/ready`,
      {
        config,
        schema: {
          tags,
          security,
          hide,
          summary: 'Whether recovery is done',
          response: { 200: ready, 503: ready },
        },
      },
      async (_request, reply) => {
        const engine = ctx.engines.defaultId
        const body = { ready: ctx.controller.recovered, engine, engineOk: ctx.engines.health(engine).ok }
        return reply.code(body.ready ? 200 : 503).send(body)
      },
    )
  }
}
