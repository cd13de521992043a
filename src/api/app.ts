import fastifyWebsocket from '@fastify/websocket'
import Fastify, { LogController, type FastifyBaseLogger, type FastifyReply } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { Socket } from 'node:net'
import { safeParse, type $ZodType } from 'zod/v4/core'
import { fail } from '../model/errors.ts'
import type { App, Context } from './context.ts'
import { rawErrorResponse, toHoldfast, zodIssues } from './errors.ts'
import { addGuard, KEY_PROTOCOL, WS_PROTOCOL } from './guard.ts'
import { addMetrics } from './metrics.ts'
import { docsRoutes } from './routes/docs.ts'
import { registerRoutes } from './routes/index.ts'

/** Bytes of a JSON body; files go through the archive route, which streams. */
const BODY_LIMIT = 4 * 2 ** 20
/** How long a client may take to send its headers, milliseconds. Bodies may be large files, so they have no such limit. */
const HEADERS_LIMIT_MS = 30_000
/** Longest WebSocket message, bytes. */
const WS_MESSAGE_MAX = 4 * 2 ** 20

/** What comes before the routes: bodies, errors, the guard and upgrades. */
export function createBase(ctx: Context): App {
  const logger: FastifyBaseLogger = ctx.logger
  const app = Fastify({
    loggerInstance: logger,
    // One line per request would drown what matters; failures are logged by the error handler.
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: (raw) => requestId(raw.headers['x-request-id'], ctx),
    bodyLimit: BODY_LIMIT,
    routerOptions: { maxParamLength: 256 },
    serverFactory: (handler) => {
      const server =
        ctx.config.tls === undefined ? createServer(handler) : createTlsServer(ctx.config.tls, handler)
      server.headersTimeout = HEADERS_LIMIT_MS
      server.requestTimeout = 0
      return server
    },
    clientErrorHandler: (error, socket) => refuseConnection(error, socket),
    frameworkErrors: (error, request, reply) =>
      refuseUrl(error, request.id, reply as unknown as FastifyReply),
  }).withTypeProvider<ZodTypeProvider>()

  setUpBodies(app)
  addErrors(app)
  addGuard(app, ctx)
  void app.register(fastifyWebsocket, {
    options: {
      maxPayload: WS_MESSAGE_MAX,
      // A key offered as a protocol must not be echoed.
      handleProtocols: (offered) => (offered.has(WS_PROTOCOL) ? WS_PROTOCOL : firstPublic(offered)),
    },
  })
  return app
}

/** Builds the API without listening. */
export function buildApp(ctx: Context): App {
  const app = createBase(ctx)
  const metrics = addMetrics(app, ctx)
  docsRoutes(app, ctx)
  registerRoutes(app, ctx, metrics)
  return app
}

function firstPublic(offered: ReadonlySet<string>): string | false {
  for (const protocol of offered) if (!protocol.startsWith(KEY_PROTOCOL)) return protocol
  return false
}

function requestId(header: string | string[] | undefined, ctx: Context): string {
  return typeof header === 'string' && /^[A-Za-z0-9._:-]{1,128}$/.test(header) ? header : ctx.ids.next()
}

/** A URL that cannot be read reaches no route and no hook. */
function refuseUrl(error: Error, id: string, reply: FastifyReply): void {
  const { error: known } = toHoldfast(error, { id, contentType: '', wants: '', bodyLimit: BODY_LIMIT })
  void reply.code(known.status).header('X-Request-ID', id).send(known.toBody())
}

function refuseConnection(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const problem = fail('INVALID_REQUEST', { issues: [{ path: '', message: 'this is not HTTP/1.1' }] })
  socket.end(rawErrorResponse(problem.status, problem.toBody()))
}

function setUpBodies(app: App): void {
  app.removeContentTypeParser(['text/plain', 'application/json'])
  const parse = app.getDefaultJsonParser('error', 'error')
  app.addContentTypeParser(
    ['application/json', 'application/merge-patch+json'],
    { parseAs: 'string' },
    (request, body, done) => {
      // Clients name the type also where they send no body.
      if (body === '') done(null, undefined)
      else void parse(request, body.toString(), done)
    },
  )
  app.setValidatorCompiler(({ schema, httpPart, method, url }) => {
    const create = httpPart === 'body' && method === 'POST' && url.endsWith('/sandboxes')
    return (data: unknown) => {
      const result = safeParse(schema as unknown as $ZodType, data)
      if (result.success) return { value: result.data }
      const issues = zodIssues(result.error)
      return {
        error: create ? fail('SANDBOX::INVALID_PARAMETER', { issues }) : fail('INVALID_REQUEST', { issues }),
      }
    }
  })
  // The compiler checks what handlers send against the schemas; checking it again at run time would only be slower.
  app.setSerializerCompiler(() => (data) => JSON.stringify(data))
}

function addErrors(app: App): void {
  app.addHook('onSend', async (request, reply) => {
    reply.header('X-Request-ID', request.id)
    reply.header('X-Content-Type-Options', 'nosniff')
  })
  app.setErrorHandler((error, request, reply) => {
    const { error: known, internal } = toHoldfast(error, {
      id: request.id,
      contentType: request.headers['content-type'] ?? '',
      wants:
        request.routeOptions.url?.endsWith('/archive') === true ? 'application/x-tar' : 'application/json',
      bodyLimit: request.routeOptions.bodyLimit ?? BODY_LIMIT,
    })
    // The route's pattern, not its URL: a query can carry a token.
    if (internal)
      request.log.error(
        { err: error, requestId: request.id, route: request.routeOptions.url },
        'request failed',
      )
    return reply
      .code(known.status)
      .type('application/json; charset=utf-8')
      .send(JSON.stringify(known.toBody()))
  })
  app.setNotFoundHandler((request) => {
    throw fail('ROUTE_NOT_FOUND', { method: request.method, path: request.url.split('?')[0] ?? '' })
  })
}
