import { z } from 'zod'
import { fail } from '../../model/errors.ts'
import { applyTo, mustFind } from '../intents/apply.ts'
import { commitIntent } from '../intents/commit.ts'
import { checkNameFree, createSandbox } from '../intents/create.ts'
import { setMetadata } from '../intents/lifecycle.ts'
import { checkUpdate, update } from '../intents/update.ts'
import type { App, Context } from '../context.ts'
import { idempotencyOf, sendCommitted } from '../idempotency.ts'
import { sandboxBody, volumesOf } from '../present/sandbox.ts'
import { checkCreate, checkImagePath } from '../rules/create.ts'
import { mergeMetadata, metadataIssues, parseMetadataFilter } from '../rules/metadata.ts'
import {
  errorResponses,
  flag,
  idParams,
  pageOf,
  pageShape,
  pagination,
  intentHeaders,
} from '../schemas/common.ts'
import { createBody, updateBody } from '../schemas/create.ts'
import { createdWire, sandboxListWire, sandboxWire } from '../schemas/sandbox.ts'
import { defaultEngine } from './shared.ts'
import { abortOnClose } from '../streams.ts'

const listQuery = z.object({
  ...pageShape,
  state: z
    .union([z.string(), z.array(z.string()).max(20)])
    .transform((v) => (Array.isArray(v) ? v : [v]))
    .optional()
    .describe('Repeatable; any of them, in any case.'),
  metadata: z
    .string()
    .max(8_192)
    .optional()
    .describe('key=value pairs joined with &, URL-encoded as one value; all of them.'),
  includeDeleted: flag,
})

const metadataPatch = z.record(z.string(), z.string().nullable()).describe('RFC 7396: null removes a key.')

/** Create, list, get, update. */
export function sandboxRoutes(app: App, ctx: Context): void {
  const tags = ['sandboxes']
  app.post(
    '/sandboxes',
    {
      config: { intent: true },
      schema: {
        headers: intentHeaders,
        tags,
        summary: 'Create a sandbox; the answer comes before anything is made',
        body: createBody,
        response: { 202: createdWire, ...errorResponses },
      },
    },
    async (request, reply) => {
      const wanted = checkCreate(request.body, ctx.config)
      const idem = idempotencyOf(request)
      const committed = await createSandbox(ctx, defaultEngine(ctx), wanted, idem, abortOnClose(request, ctx))
      const id = (committed.body as { id: string }).id
      reply.header('Location', `/v1/sandboxes/${id}`)
      return sendCommitted(reply, committed)
    },
  )

  app.get(
    '/sandboxes',
    {
      schema: {
        tags,
        summary: 'List sandboxes, newest first',
        querystring: listQuery,
        response: { 200: sandboxListWire, ...errorResponses },
      },
    },
    async (request) => {
      const q = request.query
      const metadata =
        q.metadata === undefined || q.metadata === '' ? undefined : parseMetadataFilter(q.metadata)
      const filter = {
        includeDeleted: q.includeDeleted,
        ...(q.state === undefined ? {} : { phases: q.state }),
        ...(metadata === undefined ? {} : { metadata }),
      }
      return ctx.store.read(async (tx) => {
        const page = await tx.sandboxes(filter, pageOf(q))
        const volumes = await volumesOf(tx, page.items)
        return {
          items: page.items.map((r) => sandboxBody(r, volumes)),
          pagination: pagination(q, page.total),
        }
      })
    },
  )

  app.get(
    '/sandboxes/:id',
    {
      schema: {
        tags,
        summary: 'Get a sandbox',
        params: idParams,
        querystring: z.object({ includeDeleted: flag }),
        response: { 200: sandboxWire, ...errorResponses },
      },
    },
    (request) =>
      ctx.store.read(async (tx) => {
        const record = await mustFind(tx, request.params.id, request.query.includeDeleted)
        return sandboxBody(record, await volumesOf(tx, [record]))
      }),
  )

  app.patch(
    '/sandboxes/:id',
    {
      schema: {
        tags,
        summary: 'Change the spec: a new generation, a new instance on the same volumes',
        params: idParams,
        body: updateBody,
        response: { 202: sandboxWire, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      const body = request.body
      checkUpdate(body)
      if (body.image !== undefined) checkImagePath(body.image.uri, 'image.uri', ctx.config.allowedHostPaths)
      const committed = await commitIntent(ctx, null, async (tx, now) => {
        if (typeof body.name === 'string') await checkNameFree(tx, body.name, id)
        const { record, kicks } = await applyTo(tx, id, now, update(body))
        return { status: 202, body: sandboxBody(record, await volumesOf(tx, [record])), kicks }
      })
      return sendCommitted(reply, committed)
    },
  )

  app.patch(
    '/sandboxes/:id/metadata',
    {
      schema: {
        tags,
        summary: 'Merge metadata',
        params: idParams,
        body: metadataPatch,
        response: { 200: sandboxWire, ...errorResponses },
      },
    },
    async (request, reply) => {
      const issues = metadataIssues(request.body, '')
      if (issues.length > 0) throw fail('INVALID_REQUEST', { issues })
      const committed = await commitIntent(ctx, null, async (tx, now) => {
        const { record, kicks } = await applyTo(tx, request.params.id, now, (held, at) => {
          const metadata = mergeMetadata(held.metadata, request.body)
          const tooMany = metadataIssues(metadata, '')
          if (tooMany.length > 0) throw fail('INVALID_REQUEST', { issues: tooMany })
          return setMetadata(metadata)(held, at)
        })
        return { status: 200, body: sandboxBody(record, await volumesOf(tx, [record])), kicks }
      })
      return sendCommitted(reply, committed)
    },
  )
}
