import type { VolumeRequest } from '@holdfast/client'

/** A command line that cannot be meant: exit 2. */
export class UsageError extends Error {
  readonly suggestion: string | undefined

  constructor(message: string, suggestion?: string) {
    super(message)
    this.name = 'UsageError'
    this.suggestion = suggestion
  }
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** `90`, `90s`, `5m`, `1h30m`, `250ms` as milliseconds; a bare number is seconds. */
export function parseDuration(text: string): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Math.round(Number(text) * 1000)
  if (!/^(\d+(\.\d+)?(ms|[smhd]))+$/.test(text)) {
    throw new UsageError(`"${text}" is not a duration`, 'Write it as 90s, 5m, 1h30m or 2d.')
  }
  let total = 0
  for (const [, value, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|[smhd])/g)) {
    total += Number(value) * (UNIT_MS[unit ?? 's'] ?? 0)
  }
  return Math.round(total)
}

const SIZE = /^\d+(\.\d+)?([kKMGTPE]i?)?[bB]?$/

/** Checks a size as `512Mi`, `2Gi`, `1G` or bytes, and gives it in the form that goes over the wire. */
export function parseSize(text: string): string {
  if (!SIZE.test(text))
    throw new UsageError(`"${text}" is not a size`, 'Write it as 512Mi, 2Gi or a number of bytes.')
  const trimmed = text.replace(/[bB]$/, '')
  // On the wire a thousand is a small k, as in Kubernetes; Ki stays.
  return trimmed.replace(/K$/, 'k').replace(/ki$/, 'Ki')
}

export function parseCpu(text: string): string {
  if (!/^\d+(\.\d+)?m?$/.test(text))
    throw new UsageError(`"${text}" is not a number of cores`, 'Write it as 2, 0.5 or 500m.')
  return text
}

export function parseCount(text: string): number {
  if (!/^\d+$/.test(text)) throw new UsageError(`"${text}" is not a whole number`)
  return Number(text)
}

export function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0
  if (port < 1 || port > 65_535) throw new UsageError(`"${text}" is not a port`, 'Ports go from 1 to 65535.')
  return port
}

/** `KEY=value`, or `KEY` alone for the value it has here. */
export function parseEnv(
  items: readonly string[],
  here: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const out: Record<string, string> = {}
  for (const item of items) {
    const at = item.indexOf('=')
    const name = at < 0 ? item : item.slice(0, at)
    if (!/^[A-Za-z_][A-Za-z0-9_.-]*$/.test(name))
      throw new UsageError(`"${item}" is no environment entry`, 'Write it as NAME=value.')
    const value = at < 0 ? here[name] : item.slice(at + 1)
    if (value === undefined) throw new UsageError(`${name} is not set here, so it has no value to pass on`)
    out[name] = value
  }
  return out
}

export function parsePairs(items: readonly string[], what: string): Record<string, string> {
  const out: Record<string, string> = {}
  for (const item of items) {
    const at = item.indexOf('=')
    if (at <= 0) throw new UsageError(`"${item}" is no ${what}`, 'Write it as key=value.')
    out[item.slice(0, at)] = item.slice(at + 1)
  }
  return out
}

export function parseRestartPolicy(text: string): string {
  if (/^(no|always|on-failure(:[1-9]\d*)?)$/.test(text)) return text
  throw new UsageError(`"${text}" is not a restart policy`, 'Use no, always, on-failure or on-failure:3.')
}

/** `claim:/path[:ro]` or `/host/dir:/path[:ro]`; `number` tells the entries of one command apart. */
export function parseMount(text: string, number: number): VolumeRequest {
  const parts = text.split(':')
  const [source = '', path = '', mode] = parts
  const wrong =
    parts.length > 3 ||
    source === '' ||
    !path.startsWith('/') ||
    (mode !== undefined && mode !== 'ro' && mode !== 'rw')
  if (wrong)
    throw new UsageError(
      `"${text}" is no mount`,
      'Write it as CLAIM:/path, /host/dir:/path, with :ro at the end to mount read-only.',
    )
  const backend = source.startsWith('/') ? { host: { path: source } } : { pvc: { claimName: source } }
  return { name: `v${number}`, ...backend, mountPath: path, ...(mode === 'ro' ? { readOnly: true } : {}) }
}

/** When `--since` was: a duration ago, or a time. RFC 3339. */
export function parseSince(text: string, now: number): string {
  if (/^\d{4}-/.test(text)) return parseTime(text)
  return new Date(now - parseDuration(text)).toISOString()
}

export function parseTime(text: string): string {
  const at = Date.parse(text)
  if (Number.isNaN(at)) throw new UsageError(`"${text}" is not a time`, 'Write it as 2026-01-31T12:00:00Z.')
  return new Date(at).toISOString()
}

/** Splits what comes after the options: a leading `--` only says where the command begins. */
export function commandWords(words: readonly string[]): string[] {
  return words[0] === '--' ? words.slice(1) : [...words]
}

/** Collects an option that may be given several times. */
export const collect = (value: string, before: readonly string[] | undefined): string[] => [
  ...(before ?? []),
  value,
]
