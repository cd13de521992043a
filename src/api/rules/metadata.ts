import { fail, type FieldIssue } from '../../model/errors.ts'

const NAME = /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/
const PREFIX = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$/
/** Prefixes that mean something to OpenSandbox or to us: a user's value there would be read as ours. */
const RESERVED: readonly string[] = ['opensandbox.io', 'holdfast.dev']
/** Entries; more would not fit an engine's labels. */
const MAX_ENTRIES = 64

function keyProblem(key: string): string | null {
  const slash = key.indexOf('/')
  const prefix = slash < 0 ? null : key.slice(0, slash)
  const name = slash < 0 ? key : key.slice(slash + 1)
  if (prefix !== null && (prefix.length > 253 || !PREFIX.test(prefix))) return 'the prefix must be a DNS name'
  if (prefix !== null && RESERVED.some((r) => prefix === r || prefix.endsWith(`.${r}`))) {
    return `the prefix ${prefix}/ is reserved`
  }
  if (!NAME.test(name))
    return 'a key is 1 to 63 letters, digits, ".", "_" and "-", and begins and ends with a letter or digit'
  return null
}

/** Kubernetes' rules for labels, on every engine, so that a sandbox can move. */
export function metadataIssues(metadata: Readonly<Record<string, string | null>>, at: string): FieldIssue[] {
  const issues: FieldIssue[] = []
  const entries = Object.entries(metadata)
  if (entries.length > MAX_ENTRIES) issues.push({ path: at, message: `at most ${MAX_ENTRIES} entries` })
  for (const [key, value] of entries) {
    const path = at === '' ? key : `${at}.${key}`
    const problem = keyProblem(key)
    if (problem !== null) issues.push({ path, message: problem })
    if (value !== null && value !== '' && !NAME.test(value)) {
      issues.push({
        path,
        message:
          'a value is at most 63 letters, digits, ".", "_" and "-", and begins and ends with a letter or digit',
      })
    }
  }
  return issues
}

/** RFC 7396 on a flat map. */
export function mergeMetadata(
  have: Readonly<Record<string, string>>,
  patch: Readonly<Record<string, string | null>>,
): Record<string, string> {
  const out: Record<string, string> = { ...have }
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete out[key]
    else out[key] = value
  }
  return out
}

/** Reads the list filter `k=v&k2=v2`, which came as one URL-encoded value. */
export function parseMetadataFilter(text: string): Record<string, string> {
  const out: Record<string, string> = {}
  for (const part of text.split('&')) {
    const eq = part.indexOf('=')
    if (eq <= 0) throw fail('INVALID_METADATA_FORMAT', { detail: `"${part}" is not key=value` })
    try {
      out[decodeURIComponent(part.slice(0, eq))] = decodeURIComponent(part.slice(eq + 1))
    } catch {
      // Only a malformed escape throws here.
      throw fail('INVALID_METADATA_FORMAT', { detail: `"${part}" has a malformed escape` })
    }
  }
  return out
}
