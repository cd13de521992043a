import { STATUS_CODES } from 'node:http'
import type { z } from 'zod'
import { EngineError } from '../model/facts.ts'
import { fail, HoldfastError, type ErrorBody, type FieldIssue } from '../model/errors.ts'

/** `volumes[0].mountPath` from a list of keys. */
export function fieldPath(keys: readonly PropertyKey[]): string {
  let out = ''
  for (const key of keys) {
    if (typeof key === 'number') out += `[${key}]`
    else if (/^[A-Za-z_][A-Za-z0-9_]*$/.test(String(key))) out += out === '' ? String(key) : `.${String(key)}`
    else out += `["${String(key)}"]`
  }
  return out
}

function issuesOf(issue: z.core.$ZodIssue): FieldIssue[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({ path: fieldPath([...issue.path, key]), message: 'unknown field' }))
  }
  if (issue.code === 'invalid_union') {
    // The branch that got furthest names the real mistake; a union that failed at its root names itself.
    const deepest = issue.errors.flat().toSorted((a, b) => b.path.length - a.path.length)[0]
    if (deepest !== undefined && deepest.path.length > 0) {
      return issuesOf(deepest).map((i) => ({ ...i, path: fieldPath([...issue.path, ...deepest.path]) }))
    }
  }
  return [{ path: fieldPath(issue.path), message: issue.message }]
}

export function zodIssues(error: z.core.$ZodError): FieldIssue[] {
  return error.issues.flatMap(issuesOf)
}

interface FastifyLike {
  readonly code?: unknown
  readonly statusCode?: unknown
  readonly message: string
}

function fromFastify(error: FastifyLike, request: RequestFacts): HoldfastError | null {
  switch (error.code) {
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return fail('UNSUPPORTED_MEDIA_TYPE', { got: request.contentType, want: request.wants })
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return fail('PAYLOAD_TOO_LARGE', { limitBytes: request.bodyLimit })
    default:
  }
  const status = typeof error.statusCode === 'number' ? error.statusCode : 500
  if (status < 400 || status >= 500) return null
  return fail('INVALID_REQUEST', { issues: [{ path: '', message: error.message }] })
}

/** What the error's words need to know of the request. */
export interface RequestFacts {
  readonly id: string
  readonly contentType: string
  readonly wants: string
  readonly bodyLimit: number
}

/** An engine's refusal in the words of the API. `engine` is the engine's name. */
export function fromEngine(error: EngineError, engine: string, what: string): HoldfastError {
  switch (error.kind) {
    case 'unreachable':
    case 'timeout':
    case 'fenced':
    case 'aborted':
      return fail('ENGINE_UNREACHABLE', { engine, detail: error.message })
    case 'unsupported':
      return fail('UNSUPPORTED', { what, engine })
    case 'not-found':
    case 'conflict':
    case 'invalid':
    case 'image-missing':
    case 'denied':
    case 'disk-full':
    case 'wedged':
    case 'failed':
      return fail('ENGINE_FAILED', { engine, detail: error.message })
  }
}

/** Every error as one of the table; null context means one of our own, which the caller logs. */
export function toHoldfast(
  error: unknown,
  request: RequestFacts,
): { error: HoldfastError; internal: boolean } {
  if (error instanceof HoldfastError) return { error, internal: false }
  if (error instanceof EngineError)
    return { error: fromEngine(error, 'of this sandbox', 'do this'), internal: false }
  const known = error instanceof Error ? fromFastify(error, request) : null
  if (known !== null) return { error: known, internal: false }
  return { error: fail('INTERNAL', { requestId: request.id }), internal: true }
}

/** An answer for a connection that has no request yet, as raw HTTP. */
export function rawErrorResponse(status: number, body: ErrorBody): string {
  const text = JSON.stringify(body)
  return (
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\nContent-Type: application/json; charset=utf-8\r\n` +
    `Content-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`
  )
}
