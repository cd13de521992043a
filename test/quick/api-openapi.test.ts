import { readFileSync } from 'node:fs'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { openApiDocument } from '../../src/api/openapi.ts'
import { VERSION } from '../../src/server/version.ts'
import { startServer, type Json } from './api-support/server.ts'

describe('the OpenAPI document', () => {
  it('is made without a store or an engine, and is the one in docs', async () => {
    const made = await openApiDocument(VERSION, pino({ enabled: false }))
    const kept = JSON.parse(
      readFileSync(new URL('../../docs/openapi.json', import.meta.url), 'utf8'),
    ) as unknown
    expect(JSON.parse(JSON.stringify(made))).toEqual(kept)
  })

  it('is what a server answers, names every answer’s error, and refers to nothing that is not there', async () => {
    const server = await startServer()
    try {
      const got = await server.call('GET', '/openapi.json')
      const paths = Object.entries<Json>(got.body.paths)
      expect(
        paths.every(([path]) => path.startsWith('/v1/') || path === '/health' || path === '/ready'),
      ).toBe(true)
      for (const [path, item] of paths) {
        for (const [method, operation] of Object.entries<Json>(item)) {
          expect([path, method, typeof operation.summary]).toEqual([path, method, 'string'])
        }
      }
      const names = [...JSON.stringify(got.body).matchAll(/#\/components\/schemas\/([A-Za-z]+)/g)].map(
        (m) => m[1],
      )
      expect(names).toContain('Error')
      for (const name of names) expect(got.body.components.schemas).toHaveProperty(name ?? '')
    } finally {
      await server.close()
    }
  })
})
