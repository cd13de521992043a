import type { FastifyDynamicSwaggerOptions } from '@fastify/swagger'
import { jsonSchemaTransformObject } from 'fastify-type-provider-zod'

/** The head of the document; paths and schemas come from the routes. */
export function openApiInfo(version: string): NonNullable<FastifyDynamicSwaggerOptions['openapi']> {
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
export const openApiObject: TransformObject = (document) => {
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
