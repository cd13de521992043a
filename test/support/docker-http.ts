import { request } from 'node:http'
import type { Readable } from 'node:stream'

export interface RawAnswer {
  readonly status: number
  readonly text: string
}

/** One call to Docker's API beside the driver, so that a test can look at and act on the engine behind its back. */
export function rawDocker(
  socketPath: string,
  method: string,
  path: string,
  body?: Readable | object,
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const tar = body !== undefined && 'pipe' in body
    const headers = { 'content-type': tar ? 'application/x-tar' : 'application/json' }
    const req = request({ socketPath, method, path, headers, timeout: 60_000, agent: false }, (res) => {
      let text = ''
      res.setEncoding('utf8')
      res.on('data', (chunk: string) => (text += chunk))
      res.on('error', reject)
      res.on('end', () => resolve({ status: res.statusCode ?? 0, text }))
    })
    req.on('error', reject)
    req.on('timeout', () => req.destroy(new Error(`no answer to ${method} ${path}`)))
    if (tar) body.pipe(req)
    else req.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

/** The same, and the JSON of a success. */
export async function rawJson<T>(
  socketPath: string,
  method: string,
  path: string,
  body?: object,
): Promise<T> {
  const { status, text } = await rawDocker(socketPath, method, path, body)
  if (status >= 300) throw new Error(`Docker answered ${status} to ${method} ${path}: ${text}`)
  return (text === '' ? null : JSON.parse(text)) as T
}
