import { z } from 'zod'
import type { App, Context } from '../context.ts'
import { idempotencyOf, sendCommitted } from '../idempotency.ts'
import { createVolume, findVolume, purgeVolume } from '../intents/volumes.ts'
import { volumeBody } from '../present/volume.ts'
import {
  errorResponses,
  flag,
  idParams,
  pageOf,
  pageShape,
  pagination,
  intentHeaders,
} from '../schemas/common.ts'
import { volumeCreateBody } from '../schemas/create.ts'
import { purgeWire, volumeListWire, volumeWire, type VolumeWire } from '../schemas/volume.ts'
import { abortOnClose } from '../streams.ts'
import { defaultEngine } from './shared.ts'

/** Volumes made ahead of use, and the one way for a person to remove data. */
export function volumeRoutes(app: App, ctx: Context): void {
  const tags = ['volumes']
  app.post(
    '/volumes',
    {
      config: { intent: true },
      schema: {
        headers: intentHeaders,
        tags,
        summary: 'Make a volume ahead of use',
        body: volumeCreateBody,
        response: { 201: volumeWire, ...errorResponses },
      },
    },
    async (request, reply) => {
      const idem = idempotencyOf(request)
      const signal = abortOnClose(request, ctx)
      return sendCommitted(reply, await createVolume(ctx, defaultEngine(ctx), request.body, idem, signal))
    },
  )

  app.get(
    '/volumes',
    {
      schema: {
        tags,
        summary: 'List volumes, newest first',
        querystring: z.object({ ...pageShape, includeRemoved: flag }),
        response: { 200: volumeListWire, ...errorResponses },
      },
    },
    (request) =>
      ctx.store.read(async (tx) => {
        const q = request.query
        const page = await tx.volumes({ includeRemoved: q.includeRemoved }, pageOf(q))
        const items: VolumeWire[] = []
        for (const row of page.items) items.push(volumeBody(row, await tx.holderIds(row.uid)))
        return { items, pagination: pagination(q, page.total) }
      }),
  )

  app.get(
    '/volumes/:id',
    {
      schema: {
        tags,
        summary: 'Get a volume by uid or claim name',
        params: idParams,
        response: { 200: volumeWire, ...errorResponses },
      },
    },
    (request) =>
      ctx.store.read(async (tx) => {
        const row = await findVolume(tx, ctx.engines.defaultId, request.params.id)
        return volumeBody(row, await tx.holderIds(row.uid))
      }),
  )

  app.delete(
    '/volumes/:id',
    {
      schema: {
        tags,
        summary: 'Remove a volume and its data; refused while a sandbox mounts it',
        params: idParams,
        response: { 202: purgeWire, ...errorResponses },
      },
    },
    async (request, reply) =>
      sendCommitted(reply, await purgeVolume(ctx, ctx.engines.defaultId, request.params.id)),
  )
}
