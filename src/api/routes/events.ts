import { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import { fail } from '../../model/errors.ts'
import type { EventRecord } from '../../model/records.ts'
import type { App, Context } from '../context.ts'
import { eventStream } from '../follow.ts'
import { mustFind } from '../intents/apply.ts'
import { iso } from '../present/time.ts'
import { errorResponses, idParams } from '../schemas/common.ts'
import { eventWire, type EventWire } from '../schemas/operations.ts'
import { abortOnClose } from '../streams.ts'

const shape = {
  after: z.coerce
    .number()
    .int()
    .min(0)
    .max(Number.MAX_SAFE_INTEGER)
    .optional()
    .describe('Only later ones than this sequence number.'),
  limit: z.coerce.number().int().min(1).max(1_000).default(100),
}
const query = z.object({
  sandbox: z.string().max(128).optional(),
  volume: z.string().max(128).optional(),
  ...shape,
})
const list = z.object({ items: z.array(eventWire) })

interface Scope {
  readonly subject?: string
  readonly id?: string
}

function wire(event: EventRecord): EventWire {
  const { seq, at, subject, id, type, reason, message } = event
  return { seq, at: iso(at), subject, id, type, reason, message }
}

function wantsStream(request: FastifyRequest): boolean {
  return (request.headers.accept ?? '').split(',').some((t) => t.trim().startsWith('text/event-stream'))
}

/** `Last-Event-ID` is what a reconnecting client has; it wins over the query of the first request. */
function startAfter(request: FastifyRequest, after: number | undefined): number | undefined {
  const header = request.headers['last-event-id']
  if (header === undefined) return after
  if (typeof header === 'string' && /^\d{1,15}$/.test(header)) return Number(header)
  throw fail('INVALID_REQUEST', { issues: [{ path: 'Last-Event-ID', message: 'must be a sequence number' }] })
}

async function answer(
  ctx: Context,
  request: FastifyRequest,
  reply: FastifyReply,
  scope: Scope,
  q: { after?: number | undefined; limit: number },
): Promise<FastifyReply> {
  const after = startAfter(request, q.after)
  if (!wantsStream(request)) {
    // Without a starting point the newest are meant, told in order all the same.
    const events = await ctx.store.read((tx) =>
      tx.events({
        ...scope,
        limit: q.limit,
        ...(after === undefined ? { reverse: true } : { afterSeq: after }),
      }),
    )
    const items = (after === undefined ? events.toReversed() : events).map(wire)
    return reply.send({ items })
  }
  const from = after ?? (await ctx.store.read((tx) => tx.lastEventSeq()))
  const signal = abortOnClose(request, ctx)
  return reply
    .header('Cache-Control', 'no-store')
    .header('X-Accel-Buffering', 'no')
    .type('text/event-stream')
    .send(Readable.from(eventStream(ctx, scope, from, signal, wire), { objectMode: false }))
}

/** What happened, in order; as a list, or followed as server-sent events. */
export function eventRoutes(app: App, ctx: Context): void {
  const description =
    'JSON, or with `Accept: text/event-stream` everything after Last-Event-ID (or `after`; without either, from now on), followed until closed. Streams send a comment every 15 s.'
  app.get(
    '/events',
    {
      schema: {
        tags: ['operations'],
        summary: 'Events',
        description,
        querystring: query,
        response: { 200: list, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { sandbox, volume } = request.query
      if (sandbox !== undefined && volume !== undefined) {
        throw fail('INVALID_REQUEST', { issues: [{ path: 'volume', message: 'not together with sandbox' }] })
      }
      const scope: Scope =
        sandbox !== undefined
          ? { subject: 'sandbox', id: sandbox }
          : volume !== undefined
            ? { subject: 'volume', id: volume }
            : {}
      return answer(ctx, request, reply, scope, request.query)
    },
  )

  app.get(
    '/sandboxes/:id/events',
    {
      schema: {
        tags: ['sandboxes'],
        summary: 'Events of one sandbox, also of a deleted one',
        description,
        params: idParams,
        querystring: z.object(shape),
        response: { 200: list, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      await ctx.store.read((tx) => mustFind(tx, id, true))
      return answer(ctx, request, reply, { subject: 'sandbox', id }, request.query)
    },
  )
}
