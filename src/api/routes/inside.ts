import { Readable } from 'node:stream'
import { z } from 'zod'
import { EngineError } from '../../model/facts.ts'
import { fail, type ErrorBody } from '../../model/errors.ts'
import type { GuestTarget } from '../../guest/guest.ts'
import type { App, Context } from '../context.ts'
import { toHoldfast } from '../errors.ts'
import { sendEmpty } from '../idempotency.ts'
import { execOnce } from '../inside/exec.ts'
import { execOverSocket } from '../inside/exec-socket.ts'
import { ndjsonLogs, parseSince, rawLogs } from '../inside/logs.ts'
import { inSandbox, instanceOf, targetOf, type Instance } from '../inside/target.ts'
import { iso } from '../present/time.ts'
import { empty, errorResponses, flag, idParams } from '../schemas/common.ts'
import { execOnceBody, execResultWire, statsWire } from '../schemas/inside.ts'
import { abortOnClose } from '../streams.ts'

/** How long statistics may take, milliseconds. */
const STATS_LIMIT_MS = 10_000
/** How long a stream may take as a whole, milliseconds: a day; its client's going ends it earlier. */
const STREAM_LIMIT_MS = 86_400_000

const logsQuery = z.object({
  follow: flag,
  since: z.string().max(64).optional().describe('RFC 3339, or seconds: ago, or since the epoch.'),
  tail: z.coerce.number().int().min(0).max(1_000_000).optional(),
})

const archiveQuery = z.object({
  path: z
    .string()
    .min(1)
    .max(4_096)
    .regex(/^\/[^\0]*$/, 'must be an absolute path'),
})

const stream = z.unknown().describe('A stream.')

/** Commands, output, figures and files of one instance. */
export function insideRoutes(app: App, ctx: Context): void {
  execRoutes(app, ctx)
  outputRoutes(app, ctx)
  void app.register(async (scope) => archiveRoutes(scope.withTypeProvider(), ctx))
}

function execRoutes(app: App, ctx: Context): void {
  const tags = ['inside']
  app.post(
    '/sandboxes/:id/exec',
    {
      schema: {
        tags,
        summary: 'Run a command to its end',
        params: idParams,
        body: execOnceBody,
        response: { 200: execResultWire, ...errorResponses },
      },
    },
    async (request) => {
      const at = await targetOf(ctx, request.params.id)
      try {
        return await execOnce(ctx.guest, at.target, request.body, abortOnClose(request, ctx))
      } catch (error) {
        throw inSandbox(error, at, 'run a command')
      }
    },
  )

  app.route({
    method: 'GET',
    url: '/sandboxes/:id/exec',
    schema: {
      tags,
      summary: 'Run a command over a WebSocket, with streaming input and output',
      description:
        'The client first sends the text {"type":"start","command":…,"stdin":true,"tty":{"columns":80,"rows":24}}, then binary frames 0x00 + input and texts ' +
        '{"type":"eof"}, {"type":"resize",…} or {"type":"signal","signal":"INT"}. The server sends {"type":"started"}, binary 0x01 + stdout and 0x02 + stderr, and last ' +
        '{"type":"exit",…} or {"type":"error",…}. Browsers send the key as the subprotocol `holdfast.key.<key>` beside `holdfast.v1`.',
      params: idParams,
    },
    // Answered as HTTP, before the upgrade, so that a client sees the status.
    preHandler: async (request) => {
      await targetOf(ctx, request.params.id)
    },
    handler: async () => {
      throw fail('INVALID_REQUEST', {
        issues: [{ path: '', message: 'a WebSocket is needed here; POST runs a command to its end' }],
      })
    },
    wsHandler: async (socket, request) => {
      const { id } = request.params as { id: string }
      let at: Awaited<ReturnType<typeof targetOf>> | null = null
      const resolveTarget = async (): Promise<GuestTarget> => {
        at = await targetOf(ctx, id)
        return at.target
      }
      await execOverSocket(socket, resolveTarget, {
        guest: ctx.guest,
        clock: ctx.clock,
        log: request.log,
        closing: ctx.closing,
        describe: (error) => {
          const known = at === null ? error : inSandbox(error, at, 'run a command')
          return errorBody(known, request.id, (e) =>
            request.log.error({ err: e, requestId: request.id }, 'exec failed'),
          )
        },
      })
    },
  })
}

function errorBody(error: unknown, requestId: string, onInternal: (error: unknown) => void): ErrorBody {
  const known = toHoldfast(error, { id: requestId, contentType: '', wants: '', bodyLimit: 0 })
  if (known.internal) onInternal(error)
  return known.error.toBody()
}

function outputRoutes(app: App, ctx: Context): void {
  const tags = ['inside']
  app.get(
    '/sandboxes/:id/logs',
    {
      schema: {
        tags,
        summary: "The main process's output, as NDJSON, or raw with Accept: text/plain",
        params: idParams,
        querystring: logsQuery,
        response: {
          200: {
            description: 'Output',
            content: { 'application/x-ndjson': { schema: stream }, 'text/plain': { schema: stream } },
          },
          ...errorResponses,
        },
      },
    },
    async (request, reply) => {
      const q = request.query
      const sinceMs = parseSince(q.since, ctx.clock.now())
      const at = await instanceOf(ctx, request.params.id)
      const signal = abortOnClose(request, ctx)
      const chunks = await at.engine
        .logs(
          at.engineId,
          { follow: q.follow, sinceMs, tail: q.tail ?? null },
          { limitMs: STREAM_LIMIT_MS, signal },
        )
        .catch((error: unknown) => {
          throw inSandbox(error, at, 'show output')
        })
      const plain = (request.headers.accept ?? '').split(',').some((t) => t.trim().startsWith('text/plain'))
      const body = plain
        ? Readable.from(rawLogs(chunks), { objectMode: false })
        : Readable.from(ndjsonLogs(chunks), { objectMode: false })
      reply.header('Cache-Control', 'no-store')
      return reply.type(plain ? 'text/plain; charset=utf-8' : 'application/x-ndjson').send(body)
    },
  )

  app.get(
    '/sandboxes/:id/stats',
    {
      schema: {
        tags,
        summary: 'What it uses now',
        params: idParams,
        response: { 200: statsWire, ...errorResponses },
      },
    },
    async (request) => {
      const at = await targetOf(ctx, request.params.id)
      const signal = abortOnClose(request, ctx)
      try {
        const stats = await at.engine.stats(at.engineId, { limitMs: STATS_LIMIT_MS, signal })
        return { ...stats, at: iso(stats.at) }
      } catch (error) {
        throw inSandbox(error, at, 'tell what it uses')
      }
    },
  )
}

function archiveError(error: unknown, at: Instance, path: string): unknown {
  if (error instanceof EngineError && error.kind === 'not-found') {
    return fail('PATH_NOT_FOUND', { id: at.record.id, path })
  }
  return inSandbox(error, at, 'copy files')
}

function archiveRoutes(app: App, ctx: Context): void {
  const tags = ['inside']
  app.addContentTypeParser('application/x-tar', (_request, payload, done) => done(null, payload))
  app.get(
    '/sandboxes/:id/archive',
    {
      schema: {
        tags,
        summary: 'A path as a tar stream, its base name first; also of a stopped sandbox',
        params: idParams,
        querystring: archiveQuery,
        response: {
          200: { description: 'tar', content: { 'application/x-tar': { schema: stream } } },
          ...errorResponses,
        },
      },
    },
    async (request, reply) => {
      const { path } = request.query
      const at = await instanceOf(ctx, request.params.id)
      const call = { limitMs: STREAM_LIMIT_MS, signal: abortOnClose(request, ctx) }
      const tar = await at.engine.copyOut(at.engineId, path, call).catch((error: unknown) => {
        throw archiveError(error, at, path)
      })
      return reply.type('application/x-tar').send(tar)
    },
  )

  app.put(
    '/sandboxes/:id/archive',
    {
      schema: {
        tags,
        summary: 'Unpack a tar stream into a directory; also of a stopped sandbox',
        consumes: ['application/x-tar'],
        params: idParams,
        querystring: archiveQuery,
        response: { 204: empty, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { path } = request.query
      // What is left of a body that was refused must not be read as the next request.
      reply.header('Connection', 'close')
      if (!(request.body instanceof Readable)) {
        throw fail('UNSUPPORTED_MEDIA_TYPE', {
          got: request.headers['content-type'] ?? '',
          want: 'application/x-tar',
        })
      }
      const at = await instanceOf(ctx, request.params.id)
      const call = { limitMs: STREAM_LIMIT_MS, signal: abortOnClose(request, ctx) }
      await at.engine.copyIn(at.engineId, path, request.body, call).catch((error: unknown) => {
        throw archiveError(error, at, path)
      })
      reply.removeHeader('Connection')
      return sendEmpty(reply, 204)
    },
  )
}
