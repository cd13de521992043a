import type { FastifyDynamicSwaggerOptions } from '@fastify/swagger'

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
