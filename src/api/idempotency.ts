import type { FastifyReply, FastifyRequest } from 'fastify'
import { fail } from '../model/errors.ts'
import { requestHash, type Committed, type Idempotency } from './intents/commit.ts'

/** The request's Idempotency-Key with its caller and content; null when none was sent. */
export function idempotencyOf(request: FastifyRequest): Idempotency | null {
  const header = request.headers['idempotency-key']
  if (header === undefined) return null
  if (typeof header !== 'string' || !/^[\x21-\x7e]{1,255}$/.test(header)) {
    const message = 'must be 1 to 255 printable characters without spaces'
    throw fail('INVALID_REQUEST', { issues: [{ path: 'Idempotency-Key', message }] })
  }
  // The same route with and without /v1 is the same request.
  const path = (request.url.split('?')[0] ?? '').replace(/^\/v1(?=\/)/, '')
  return {
    key: `${request.keyId}:${header}`,
    requestHash: requestHash(`${request.method} ${path}`, request.body),
  }
}

/** Sends what was committed, now or by the first request under the same key. */
export function sendCommitted(reply: FastifyReply, committed: Committed): FastifyReply {
  if (committed.replayed) reply.header('Idempotency-Replayed', 'true')
  return committed.body === null
    ? sendEmpty(reply, committed.status)
    : reply.code(committed.status).send(committed.body)
}

/**
 * Clients of the upstream protocol parse a body unless this header says that there is none. It is set on 204 as well,
 * where it is redundant: they test the header, not the status.
 */
export function sendEmpty(reply: FastifyReply, status: number): FastifyReply {
  return reply.code(status).header('Content-Length', '0').send()
}
