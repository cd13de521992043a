import { z } from 'zod'
import { fail } from '../../model/errors.ts'
import type { App, Context } from '../context.ts'
import { formatAddress } from '../address.ts'
import { iso } from '../present/time.ts'
import { errorResponses } from '../schemas/common.ts'

const resolved = z.object({ id: z.string() })
/** How many fitting ids an answer names. */
const MATCHES = 6

const info = z.object({
  version: z.string(),
  installation: z.string(),
  epoch: z.number().int(),
  engine: z.string(),
  startedAt: z.string(),
  stateDir: z.string(),
  apiListen: z.string(),
  proxyListen: z.string(),
})

/** What helps to find and to operate. */
export function operationsRoutes(app: App, ctx: Context): void {
  const tags = ['operations']
  app.get(
    '/resolve',
    {
      schema: {
        tags,
        summary: 'The id of a name, an id or a unique prefix of an id',
        querystring: z.object({ ref: z.string().min(1).max(128), includeDeleted: z.string().optional() }),
        response: { 200: resolved, ...errorResponses },
      },
    },
    (request) =>
      ctx.store.read(async (tx) => {
        const { ref } = request.query
        const byId = await tx.sandbox(ref)
        if (byId !== null && (byId.deletedAt === null || request.query.includeDeleted === 'true'))
          return { id: byId.id }
        const byName = await tx.sandboxByName(ref)
        if (byName !== null) return { id: byName.id }
        const matches = await tx.sandboxesByPrefix(ref, MATCHES)
        const only = matches[0]
        if (only === undefined) throw fail('SANDBOX::NOT_FOUND', { id: ref })
        if (matches.length > 1)
          throw fail('SANDBOX::AMBIGUOUS', { given: ref, matches: matches.map((m) => m.id) })
        return { id: only.id }
      }),
  )

  app.get(
    '/info',
    { schema: { tags, summary: 'This server', response: { 200: info, ...errorResponses } } },
    async () => {
      const { api, proxy } = ctx.addresses()
      return {
        version: ctx.version,
        installation: ctx.store.installation,
        epoch: ctx.store.epoch,
        engine: ctx.engines.defaultId,
        startedAt: iso(ctx.startedAt),
        stateDir: ctx.config.stateDir,
        apiListen: formatAddress(api),
        proxyListen: formatAddress(proxy),
      }
    },
  )
}
