import type { Metrics } from '../metrics.ts'
import { z } from 'zod'
import type { Engine } from '../../engines/engine.ts'
import { fail } from '../../model/errors.ts'
import type { App, Context } from '../context.ts'
import { formatAddress } from '../address.ts'
import { holdBody } from '../present/hold.ts'
import { iso } from '../present/time.ts'
import { EngineError } from '../../model/facts.ts'
import { empty, errorResponses } from '../schemas/common.ts'
import { sendEmpty } from '../idempotency.ts'
import { engineWire, holdWire, type EngineWire } from '../schemas/operations.ts'
import { abortOnClose } from '../streams.ts'

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
  hold: holdWire.nullable(),
})

/** What helps to find and to operate. */
export function operationsRoutes(app: App, ctx: Context, metrics: Metrics): void {
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
        hold: holdBody(await ctx.store.read((tx) => tx.hold())),
      }
    },
  )

  app.post(
    '/metrics/events',
    {
      schema: {
        tags,
        summary: "The SDKs' telemetry: accepted and dropped",
        response: { 204: empty, ...errorResponses },
      },
    },
    async (_request, reply) => sendEmpty(reply, 204),
  )

  app.get(
    '/engines',
    {
      schema: {
        tags,
        summary: 'The engines, and whether they answer',
        response: { 200: z.object({ items: z.array(engineWire) }), ...errorResponses },
      },
    },
    async (request) => {
      const signal = abortOnClose(request, ctx)
      return { items: await Promise.all(ctx.engines.all().map((engine) => engineBody(ctx, engine, signal))) }
    },
  )

  app.get('/metrics', { schema: { tags, summary: 'Figures for Prometheus' } }, async (_request, reply) =>
    reply.type(metrics.contentType).send(await metrics.scrape()),
  )
}

/** How long an engine may take to say who it is, milliseconds. */
const INFO_LIMIT_MS = 3_000

async function engineBody(ctx: Context, engine: Engine, signal: AbortSignal): Promise<EngineWire> {
  const health = ctx.engines.health(engine.id)
  const { notEnforced, ...abilities } = engine.capabilities
  const base: EngineWire = {
    id: engine.id,
    driver: engine.driver,
    ok: health.ok,
    error: health.error,
    since: iso(health.since),
    capabilities: { ...abilities, notEnforced: [...notEnforced] },
  }
  if (!health.ok) return base
  try {
    const { version, apiVersion, endpoint, details } = await engine.info({ limitMs: INFO_LIMIT_MS, signal })
    return { ...base, info: { version, apiVersion, endpoint, details: { ...details } } }
  } catch (error) {
    if (!(error instanceof EngineError)) throw error
    return { ...base, ok: false, error: error.message }
  }
}
