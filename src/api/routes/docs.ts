import type { App, Context } from '../context.ts'
import { DOCS_PATH } from '../guard.ts'

/** The OpenAPI document and its readable form, from an app that is made at their first use. */
export function docsRoutes(app: App, ctx: Context): void {
  const config = { open: true }
  let made: Promise<App> | null = null
  const documents = (): Promise<App> => {
    made ??= import('../openapi.ts')
      .then((module) => module.buildDocuments(ctx.version, ctx.logger))
      .catch((error: unknown) => {
        made = null
        throw error
      })
    return made
  }
  app.addHook('onClose', async () => {
    if (made !== null) await (await made).close()
  })
  app.get('/openapi.json', { config }, async (_request, reply) =>
    reply.type('application/json; charset=utf-8').send((await documents()).swagger()),
  )
  for (const url of [DOCS_PATH, `${DOCS_PATH}/*`]) {
    app.get(url, { config }, async (request, reply) => {
      const page = await (await documents()).inject({ method: 'GET', url: request.url })
      for (const [name, value] of Object.entries(page.headers)) {
        if (value !== undefined && name !== 'connection') reply.header(name, value)
      }
      return reply.code(page.statusCode).send(page.rawPayload)
    })
  }
}
