import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { systemClock } from '../../server/system.ts'
import { openConnection, type Connection } from './connection.ts'
import { exchange, readText, type HttpRequest } from './http.ts'

let dir: string
let served: string[]
let connection: Connection
let close: () => Promise<void>

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'hf-http-'))
  served = []
  const path = join(dir, 'engine.sock')
  const server = createServer((request, response) => {
    served.push(`${request.method} ${request.url}`)
    response.end('{}')
  })
  await new Promise<void>((done) => server.listen(path, done))
  connection = openConnection({ endpoint: `unix://${path}`, clock: systemClock() })
  close = async () => {
    await connection.close()
    await new Promise<void>((done) => server.close(() => done()))
  }
})

afterEach(async () => {
  await close()
  rmSync(dir, { recursive: true })
})

const send = (
  request: Pick<HttpRequest, 'method' | 'path' | 'mutation'>,
  fence: () => void,
): Promise<string> =>
  exchange(connection.dispatcher, systemClock(), {
    what: 'it',
    call: { limitMs: 5_000, fence },
    ...request,
  }).then(({ body }) => readText('it', body))

test('the fence is asked when a connection is there: a change that it refuses is never sent', async () => {
  const refuses = (): void => {
    throw new Error('another one took over')
  }
  const change = { method: 'POST', path: '/change', mutation: true } as const
  await expect(send(change, refuses)).rejects.toMatchObject({ kind: 'fenced', effect: 'none' })
  expect(served).toEqual([])
  // A look changes nothing, so it needs no leave.
  await send({ method: 'GET', path: '/look', mutation: false }, refuses)
  await send(change, () => undefined)
  expect(served).toEqual(['GET /look', 'POST /change'])
})
