import { EngineError, type EngineErrorKind } from '../../model/facts.ts'

/** What the engine answered, as far as it explains itself. */
export interface Refusal {
  readonly status: number
  /** The engine's own message; null when the answer is not the engine's JSON (a proxy's page, for one). */
  readonly message: string | null
}

const DISK_FULL = /no space left on device|disk quota exceeded|ENOSPC/i

function kindOf(status: number, message: string): EngineErrorKind {
  if (DISK_FULL.test(message)) return 'disk-full'
  if (status === 400) return 'invalid'
  if (status === 401 || status === 403) return 'denied'
  if (status === 404) return 'not-found'
  if (status === 409) return 'conflict'
  if (status === 501) return 'unsupported'
  return 'failed'
}

/**
 * The error of an answer that is not a success. A 4xx in the engine's own words is a refusal before any effect;
 * everything else leaves the effect of a change unknown.
 */
export function refusalError(what: string, refusal: Refusal, mutation: boolean): EngineError {
  const { status, message } = refusal
  const own = message !== null
  const text = `${what}: ${own ? message : `the answer was HTTP ${status}, and not the engine's own`}`
  const kind = own ? kindOf(status, message) : 'failed'
  const certain = !mutation || (own && ((status >= 400 && status < 500) || status === 501))
  return new EngineError(kind, certain ? 'none' : 'unknown', text)
}

const WEDGED = /\btask \w+: already exists|id already in use|failed to start shim: mkdir .*file exists/i

/**
 * The error of a refused start. A daemon or containerd that was killed in the middle of a start leaves a task without a
 * process behind and never cleans it up, so that each later start of this container collides with it (moby issues
 * 38346, 40613, 50040).
 */
export function startError({ status, message }: Refusal, error: EngineError): EngineError {
  if (status < 500 || !WEDGED.test(message ?? '')) return error
  const text = `${error.message}. The engine was killed in the middle of an earlier start and keeps a leftover of it, so it cannot start this instance. Its volumes are untouched: \`recover\` makes the next instance on them, and a restart of the machine frees this one`
  return new EngineError('wedged', 'none', text, { cause: error })
}

const UNREACHABLE = new Set([
  'ECONNREFUSED',
  'ENOENT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EHOSTDOWN',
  'ETIMEDOUT',
  'ECONNRESET',
  'EPIPE',
  'ENOTSOCK',
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_SOCKET',
  'UND_ERR_CLOSED',
  'UND_ERR_DESTROYED',
])

const TLS_REFUSED = /^(CERT_|ERR_TLS_|ERR_SSL_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_MISMATCH)/

function codeOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? code : ''
}

/** The error of a call that got no answer. `sent` tells whether anything of the request had left. */
export function transportError(what: string, error: unknown, sent: boolean, mutation: boolean): EngineError {
  const effect = sent && mutation ? 'unknown' : 'none'
  if (error instanceof EngineError)
    return error.effect === effect
      ? error
      : new EngineError(error.kind, effect, error.message, { cause: error })
  const code = codeOf(error)
  const text = `${what}: ${error instanceof Error ? error.message : String(error)}`
  let kind: EngineErrorKind = 'failed'
  if (code === 'EACCES' || code === 'EPERM' || TLS_REFUSED.test(code)) kind = 'denied'
  else if (UNREACHABLE.has(code)) kind = 'unreachable'
  return new EngineError(kind, effect, text, { cause: error })
}

/** A fence that refused: nothing was sent. */
export function fencedError(what: string, error: unknown): EngineError {
  const why = error instanceof Error ? error.message : String(error)
  return new EngineError('fenced', 'none', `${what} was not sent: ${why}`, { cause: error })
}
