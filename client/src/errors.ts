import { exitCodeFor, fail, type ErrorCode, type ErrorContexts } from '../../src/model/errors.ts'

/**
 * The one error table lives in the server's `model`; the bundle takes in the few kilobytes that are used here. It is
 * the only thing the client takes from there, so that a code has one status, one exit code and one wording everywhere.
 */
export { exitCodeFor }

interface ApiErrorInit {
  readonly code: string
  /** HTTP status; for an error that never reached the server, the one its code has in the table. */
  readonly status: number
  readonly message: string
  readonly suggestion?: string | undefined
  readonly details?: unknown
  readonly requestId?: string | null | undefined
  readonly cause?: unknown
}

/** Any call of the client rejects with this, also when the server could not be reached (`SERVER_UNREACHABLE`, `TIMEOUT`). */
export class ApiError extends Error {
  readonly code: string
  readonly status: number
  readonly suggestion: string | undefined
  readonly details: unknown
  readonly requestId: string | undefined
  /** What a command line program exits with: 1, 2 usage, 3 not found, 4 conflict, 5 unreachable, 124 timeout. */
  readonly exitCode: number

  constructor(init: ApiErrorInit) {
    super(init.message, init.cause === undefined ? undefined : { cause: init.cause })
    this.name = 'ApiError'
    this.code = init.code
    this.status = init.status
    this.suggestion = init.suggestion
    this.details = init.details
    this.requestId = init.requestId ?? undefined
    this.exitCode = exitCodeFor(init.code, init.status)
  }
}

/** An error of the table, told by the client itself. */
export function clientError<K extends ErrorCode>(
  code: K,
  context: ErrorContexts[K],
  cause?: unknown,
): ApiError {
  const { status, message, suggestion, details } = fail(code, context)
  return new ApiError({ code, status, message, suggestion, details, cause })
}

const text = (value: unknown): string | undefined =>
  typeof value === 'string' && value !== '' ? value : undefined

/** Builds the error of a non-2xx answer; a body that is not ours (a proxy's page) is kept as a shortened detail. */
export function errorFromAnswer(status: number, body: unknown, requestId?: string | null): ApiError {
  if (typeof body === 'object' && body !== null) {
    const fields = body as Record<string, unknown>
    const code = text(fields['code'])
    if (code !== undefined) {
      return new ApiError({
        code,
        status,
        message: text(fields['message']) ?? `The server answered ${status} ${code}.`,
        suggestion: text(fields['suggestion']),
        details: fields['details'],
        requestId,
      })
    }
  }
  const shown = typeof body === 'string' ? body.replaceAll(/\s+/g, ' ').trim().slice(0, 200) : ''
  return new ApiError({
    code: 'HTTP_ERROR',
    status,
    message: `The server answered ${status}${shown === '' ? ' without a reason' : `: ${shown}`}.`,
    requestId,
  })
}
