import fastifySwagger, { type FastifyDynamicSwaggerOptions } from '@fastify/swagger'
import fastifySwaggerUi from '@fastify/swagger-ui'
import { createJsonSchemaTransform, jsonSchemaTransformObject } from 'fastify-type-provider-zod'
import { createBase } from './app.ts'
import type { App, Context } from './context.ts'
import type { ApiDeps } from './deps.ts'
import { DOCS_PATH } from './guard.ts'
import { registerRoutes } from './routes/index.ts'

/** The head of the document; paths and schemas come from the routes. */
function openApiInfo(version: string): NonNullable<FastifyDynamicSwaggerOptions['openapi']> {
  return {
    openapi: '3.1.0',
    info: {
      title: 'Holdfast',
      version,
      description:
        'Sandboxes and their data, kept alive. The OpenSandbox lifecycle API with what it lacks. Served at /v1 and at /. ' +
        'Every error is {code, message, suggestion?, details?}; every POST that records an intent takes an Idempotency-Key.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    components: {
      securitySchemes: {
        apiKey: { type: 'apiKey', in: 'header', name: 'OPEN-SANDBOX-API-KEY' },
        bearer: { type: 'http', scheme: 'bearer' },
      },
    },
    security: [{ apiKey: [] }, { bearer: [] }],
    tags: [
      { name: 'sandboxes', description: 'The durable identity, and what is wanted of it.' },
      { name: 'inside', description: 'Commands, logs, files and ports of a running sandbox.' },
      { name: 'volumes', description: 'Data that outlives compute.' },
      { name: 'operations', description: 'Events, audit, engines and health.' },
    ],
  }
}

type TransformObject = NonNullable<FastifyDynamicSwaggerOptions['transformObject']>

const REF = /"#\/components\/schemas\/([^"]+)"/g

/** Every named schema comes once as input and once as output; only what something refers to is kept. */
const openApiObject: TransformObject = (document) => {
  const whole = jsonSchemaTransformObject(document)
  const { components, ...rest } = whole as { components?: { schemas?: Record<string, unknown> } }
  const schemas = components?.schemas ?? {}
  const used = new Set<string>()
  const visit = (part: unknown): void => {
    for (const [, name = ''] of JSON.stringify(part).matchAll(REF)) {
      if (used.has(name)) continue
      used.add(name)
      visit(schemas[name] ?? {})
    }
  }
  visit(rest)
  const kept = Object.fromEntries(Object.entries(schemas).filter(([name]) => used.has(name)))
  return { ...whole, components: { ...components, schemas: kept } } as ReturnType<TransformObject>
}

/** A part that is not there: routes touch what they depend on only when they are called. */
function nothing<T extends object>(what: string): T {
  return new Proxy({} as T, {
    get: () => {
      throw new Error(`the OpenAPI document needs no ${what}`)
    },
  })
}

function contextOf(version: string, logger: ApiDeps['logger']): Context {
  const address = { host: '127.0.0.1', port: 0 }
  return {
    store: nothing('store'),
    engines: nothing('engine'),
    controller: nothing('controller'),
    guest: nothing('guest'),
    clock: nothing('clock'),
    ids: { next: () => 'docs', secret: () => '', random: () => 0 },
    bell: nothing('bell'),
    keys: nothing('keys'),
    links: nothing('links'),
    config: { listen: address, proxyListen: address, allowedHosts: [], allowedHostPaths: [], stateDir: '' },
    logger,
    version,
    startedAt: 0,
    gone: new WeakMap(),
    closing: new AbortController().signal,
    addresses: () => ({ api: address, proxy: address }),
  }
}

/**
 * The same routes in an app of their own that only describes them. The server makes it when somebody asks for the
 * document: most never do, and it costs a tenth of the start and several megabytes.
 */
export async function buildDocuments(version: string, logger: ApiDeps['logger']): Promise<App> {
  const ctx = contextOf(version, logger)
  const app = createBase(ctx)
  await app.register(fastifySwagger, {
    openapi: openApiInfo(version),
    transform: createJsonSchemaTransform({}),
    transformObject: openApiObject,
  })
  await app.register(fastifySwaggerUi, { routePrefix: DOCS_PATH, staticCSP: true })
  registerRoutes(app, ctx, { contentType: '', scrape: () => Promise.resolve('') })
  await app.ready()
  return app
}

/** The OpenAPI document of this version, without a store or an engine. */
export async function openApiDocument(version: string, logger: ApiDeps['logger']): Promise<object> {
  const app = await buildDocuments(version, logger)
  try {
    return app.swagger()
  } finally {
    await app.close()
  }
}
