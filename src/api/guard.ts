import type { FastifyRequest } from 'fastify'
import { hostAllowed, hostName } from './address.ts'
import type { App, Context } from './context.ts'
import { fail } from '../model/errors.ts'

/** The header that the upstream SDKs send. */
export const KEY_HEADER = 'open-sandbox-api-key'
/** Prefix of the WebSocket subprotocol that carries a key, since browsers can set no header there. */
export const KEY_PROTOCOL = 'holdfast.key.'
export const WS_PROTOCOL = 'holdfast.v1'

/** The readable form of the OpenAPI document; some of its routes are a plugin's, so they are known by their path. */
export const DOCS_PATH = '/docs'

type Headers = Readonly<Record<string, string | string[] | undefined>>

function single(headers: Headers, name: string): string | null {
  const value = headers[name]
  return typeof value === 'string' && value !== '' ? value : null
}

export function bearer(headers: Headers): string | null {
  const match = /^Bearer +(\S+) *$/i.exec(single(headers, 'authorization') ?? '')
  return match?.[1] ?? null
}

/** The key that a request carries, wherever it is allowed to; null when there is none. */
export function keyOf(headers: Headers, upgrade: boolean): string | null {
  const direct = single(headers, KEY_HEADER) ?? bearer(headers)
  if (direct !== null || !upgrade) return direct
  const offered = (single(headers, 'sec-websocket-protocol') ?? '').split(',').map((p) => p.trim())
  return offered.find((p) => p.startsWith(KEY_PROTOCOL))?.slice(KEY_PROTOCOL.length) ?? null
}

function isDocs(route: string | undefined): boolean {
  return route === DOCS_PATH || route?.startsWith(`${DOCS_PATH}/`) === true
}

function isUpgrade(request: FastifyRequest): boolean {
  return (request.headers.upgrade ?? '').toLowerCase() === 'websocket'
}

/**
 * What every request passes before anything else is looked at: the `Host` allow-list, then the key, then whether an
 * Idempotency-Key makes sense here.
 */
export function addGuard(app: App, ctx: Context): void {
  app.decorateRequest('keyId', '')
  // An upgrade that was refused leaves a connection that no HTTP server reads any more: it must not be kept.
  app.addHook('onSend', async (request, reply) => {
    if (isUpgrade(request)) reply.header('Connection', 'close')
  })
  app.addHook('onResponse', async (request, reply) => {
    if (isUpgrade(request) && reply.raw.headersSent) request.raw.socket.end()
  })
  app.addHook('onRequest', async (request) => {
    const host = hostName(request.headers.host)
    if (host === null || !hostAllowed(host, ctx.config.listen, ctx.config.allowedHosts)) {
      throw fail('FORBIDDEN_HOST', { host: request.headers.host ?? '' })
    }
    const { open, intent } = request.routeOptions.config
    if (open !== true && !isDocs(request.routeOptions.url)) {
      const key = keyOf(request.headers, isUpgrade(request))
      if (key === null) throw fail('MISSING_API_KEY', {})
      const id = await ctx.keys.identify(key)
      if (id === null) throw fail('INVALID_API_KEY', {})
      request.keyId = id
    }
    if (request.headers['idempotency-key'] !== undefined && intent !== true) {
      const route = `${request.method} ${request.routeOptions.url ?? request.url.split('?')[0] ?? ''}`
      throw fail('IDEMPOTENCY_UNSUPPORTED', { route })
    }
  })
}
