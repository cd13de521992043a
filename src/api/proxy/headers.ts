import { KEY_HEADER, KEY_PROTOCOL } from '../guard.ts'
import { COOKIE } from './target.ts'

/** Headers of one connection, not of the message (RFC 9110 §7.6.1). */
const HOP: ReadonlySet<string> = new Set([
  'connection',
  // Answered by our own listener.
  'expect',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])

export interface Rules {
  readonly form: 'host' | 'path'
  /** The `Authorization` header carries a key of ours. */
  readonly dropAuthorization: boolean
  readonly upgrade: boolean
  /** How a body is framed behind us; null for none. */
  readonly framing: 'chunked' | 'length' | null
  /** Headers that are set after the others, as X-Forwarded-For. */
  readonly set: Readonly<Record<string, string>>
}

/** Pairs of a raw header list; its spelling, order and repetitions are kept. */
function pairs(raw: readonly string[]): [string, string][] {
  const out: [string, string][] = []
  for (let i = 0; i + 1 < raw.length; i += 2) out.push([raw[i] ?? '', raw[i + 1] ?? ''])
  return out
}

function named(raw: readonly string[]): Set<string> {
  const out = new Set(HOP)
  for (const [name, value] of pairs(raw)) {
    if (name.toLowerCase() !== 'connection') continue
    for (const token of value.split(',')) out.add(token.trim().toLowerCase())
  }
  return out
}

function withoutOurs(name: string, value: string, rules: Rules): string | null {
  switch (name) {
    case KEY_HEADER:
      return null
    case 'authorization':
      return rules.dropAuthorization ? null : value
    case 'cookie': {
      // On the shared origin of the path form, cookies are of other sandboxes and of nobody's.
      if (rules.form === 'path') return null
      const kept = value.split(';').filter((c) => !c.trim().startsWith(`${COOKIE}=`))
      return kept.length === 0 ? null : kept.join(';').trim()
    }
    case 'sec-websocket-protocol': {
      const kept = value.split(',').filter((p) => !p.trim().startsWith(KEY_PROTOCOL))
      return kept.length === 0 ? null : kept.join(',').trim()
    }
    default:
      return value
  }
}

/** What the sandbox sees of a request: nothing that speaks of this connection, and no secret of ours. */
export function requestHeaders(raw: readonly string[], rules: Rules): string[] {
  const drop = named(raw)
  const out: string[] = []
  const replaced = new Set(Object.keys(rules.set).map((n) => n.toLowerCase()))
  for (const [name, value] of pairs(raw)) {
    const lower = name.toLowerCase()
    if (drop.has(lower) || replaced.has(lower) || (lower === 'content-length' && rules.framing !== 'length'))
      continue
    const kept = withoutOurs(lower, value, rules)
    if (kept !== null) out.push(name, kept)
  }
  for (const [name, value] of Object.entries(rules.set)) out.push(name, value)
  if (rules.upgrade) out.push('Connection', 'Upgrade', 'Upgrade', 'websocket')
  if (rules.framing === 'chunked') out.push('Transfer-Encoding', 'chunked')
  return out
}

/** What the client sees of an answer. In the path form no cookie: it would be one for every sandbox. */
export function responseHeaders(raw: readonly string[], form: 'host' | 'path', upgrade: boolean): string[] {
  const drop = named(raw)
  const out: string[] = []
  for (const [name, value] of pairs(raw)) {
    const lower = name.toLowerCase()
    if (drop.has(lower)) continue
    if (lower === 'set-cookie' && (form === 'path' || value.trimStart().startsWith(`${COOKIE}=`))) continue
    out.push(name, value)
  }
  if (upgrade) out.push('Connection', 'Upgrade', 'Upgrade', 'websocket')
  return out
}
