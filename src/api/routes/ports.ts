import { z } from 'zod'
import { fail } from '../../model/errors.ts'
import type { App, Context } from '../context.ts'
import { hostName } from '../address.ts'
import { mustFind } from '../intents/apply.ts'
import { iso } from '../present/time.ts'
import { errorResponses, portParams, timeText } from '../schemas/common.ts'

/** Ports of the upstream protocol that are served by this server itself, not by anything in the sandbox. */
const OWN_PORTS: ReadonlySet<number> = new Set([44_772, 18_080])

const endpointQuery = z.object({
  use_server_proxy: z.enum(['true', 'false']).optional().describe('Every endpoint goes through this server.'),
  expires: z
    .string()
    .max(20)
    .optional()
    .describe('Signed endpoints are not available; see ports/{port}/link.'),
})
const endpointWire = z.object({ endpoint: z.string(), headers: z.record(z.string(), z.string()).optional() })
const linkBody = z
  .strictObject({ expiresInSeconds: z.number().int().min(1).max(604_800).default(3_600) })
  .nullish()
const linkWire = z.object({ url: z.string(), expiresAt: timeText })
const pingWire = z.object({ status: z.literal('ok') })

function hostFor(header: string | undefined, fallback: string): string {
  const name = hostName(header) ?? fallback
  return name.includes(':') ? `[${name}]` : name
}

/** Where ports of a sandbox are reached. The answers stay valid over restart, stop and start. */
export function portRoutes(app: App, ctx: Context): void {
  const tags = ['inside']
  app.get(
    '/sandboxes/:id/endpoints/:port',
    {
      schema: {
        tags,
        summary: 'Where a port is reached; without a scheme, and stable over restarts',
        params: portParams,
        querystring: endpointQuery,
        response: { 200: endpointWire, ...errorResponses },
      },
    },
    async (request) => {
      const { id, port } = request.params
      if (request.query.expires !== undefined) {
        throw fail('NOT_IMPLEMENTED', {
          what: 'expires',
          detail: 'signed endpoints do not exist here; POST ports/{port}/link makes a signed browser link',
        })
      }
      await ctx.store.read((tx) => mustFind(tx, id))
      const { api, proxy } = ctx.addresses()
      const listener = OWN_PORTS.has(port) ? api : proxy
      return {
        endpoint: `${hostFor(request.headers.host, listener.host)}:${listener.port}/sandboxes/${id}/proxy/${port}`,
      }
    },
  )

  app.post(
    '/sandboxes/:id/ports/:port/link',
    {
      schema: {
        tags,
        summary: 'A link that opens the port in a browser, on an origin of its own',
        params: portParams,
        body: linkBody,
        response: { 200: linkWire, ...errorResponses },
      },
    },
    async (request) => {
      const { id, port } = request.params
      await ctx.store.read((tx) => mustFind(tx, id))
      const expiresAt = ctx.clock.now() + (request.body?.expiresInSeconds ?? 3_600) * 1000
      const token = await ctx.links.sign({ sandbox: id, port, expiresAt })
      const scheme = ctx.config.tls === undefined ? 'http' : 'https'
      const host = `${id}-${port}.${ctx.config.proxyDomain ?? 'localhost'}:${ctx.addresses().proxy.port}`
      return { url: `${scheme}://${host}/?holdfast-token=${token}`, expiresAt: iso(expiresAt) }
    },
  )

  app.get(
    '/sandboxes/:id/proxy/:port/ping',
    {
      schema: {
        tags,
        summary: 'Whether the sandbox can be worked in',
        hide: true,
        params: portParams,
        response: { 200: pingWire, ...errorResponses },
      },
    },
    async (request) => {
      const { id, port } = request.params
      if (!OWN_PORTS.has(port)) throw elsewhere(ctx, request.method, id, port)
      const record = await ctx.store.read((tx) => mustFind(tx, id))
      if (record.status.phase !== 'Running') {
        throw fail('SERVICE_UNAVAILABLE', { detail: `sandbox ${id} is ${record.status.phase}` })
      }
      return { status: 'ok' as const }
    },
  )

  app.all(
    '/sandboxes/:id/proxy/:port/*',
    { schema: { hide: true, params: portParams.and(z.object({ '*': z.string() })) } },
    async (request) => {
      const { id, port } = request.params
      await ctx.store.read((tx) => mustFind(tx, id))
      if (!OWN_PORTS.has(port)) throw elsewhere(ctx, request.method, id, port)
      throw fail('NOT_IMPLEMENTED', {
        what: `${request.method} /${request.params['*']}`,
        detail: 'this version does not have the in-sandbox protocol yet; use exec and archive',
      })
    },
  )
}

/** What sandboxes serve never comes from the API's origin. */
function elsewhere(ctx: Context, method: string, id: string, port: number): Error {
  const { host, port: listener } = ctx.addresses().proxy
  return fail('ROUTE_NOT_FOUND', {
    method,
    path: `port ${port} of ${id} on this address; it is served at ${host}:${listener}`,
  })
}
