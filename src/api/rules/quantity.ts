import type { Limits } from '../../model/records.ts'
import type { FieldIssue } from '../../model/errors.ts'

const BINARY: Readonly<Record<string, number>> = {
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  k: 1e3,
  K: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  '': 1,
}

/** The smallest memory limit that engines take, bytes (Docker's own). */
const MEMORY_MIN_BYTES = 6 * 2 ** 20
/** The smallest share of a core that engines take, thousandths (Docker's own). */
const CPU_MIN_MILLIS = 10

/** Bytes of a quantity like "512Mi", "1Gi", "1.5G" or "1048576"; null when it is none. */
export function parseBytes(text: string): number | null {
  const match = /^(\d{1,15}(?:\.\d{1,6})?)(Ki|Mi|Gi|Ti|k|K|M|G|T)?$/.exec(text)
  if (match === null) return null
  const bytes = Math.round(Number(match[1]) * (BINARY[match[2] ?? ''] ?? 1))
  return Number.isSafeInteger(bytes) && bytes > 0 ? bytes : null
}

/** Thousandths of a core of "500m", "1" or "0.5"; null when it is none. */
export function parseCpu(text: string): number | null {
  const milli = /^(\d{1,9})m$/.exec(text)
  const millis =
    milli === null
      ? /^\d{1,6}(\.\d{1,3})?$/.test(text)
        ? Math.round(Number(text) * 1000)
        : null
      : Number(milli[1])
  return millis === null || millis <= 0 ? null : millis
}

function parseOne(key: string, value: string): { limits: Limits } | { problem: string } {
  switch (key) {
    case 'cpu': {
      const cpuMillis = parseCpu(value)
      if (cpuMillis === null) return { problem: 'must be a number of cores as "500m" or "1"' }
      if (cpuMillis < CPU_MIN_MILLIS) return { problem: `must be at least ${CPU_MIN_MILLIS}m` }
      return { limits: { cpuMillis } }
    }
    case 'memory': {
      const memoryBytes = parseBytes(value)
      if (memoryBytes === null) return { problem: 'must be a size as "512Mi" or "1Gi"' }
      if (memoryBytes < MEMORY_MIN_BYTES) return { problem: 'must be at least 6Mi' }
      return { limits: { memoryBytes } }
    }
    case 'pids': {
      const pids = /^[1-9]\d{0,6}$/.test(value) ? Number(value) : null
      return pids === null ? { problem: 'must be a whole number of processes' } : { limits: { pids } }
    }
    default:
      return { problem: 'unknown limit; cpu, memory and pids are known' }
  }
}

/** The limits of a request; problems go to `issues`. */
export function parseLimits(map: Readonly<Record<string, string>>, issues: FieldIssue[]): Limits {
  let limits: Limits = {}
  for (const [key, value] of Object.entries(map)) {
    const one = parseOne(key, value)
    if ('problem' in one) issues.push({ path: `resourceLimits.${key}`, message: one.problem })
    else limits = { ...limits, ...one.limits }
  }
  return limits
}

function bytesText(bytes: number): string {
  for (const unit of ['Ti', 'Gi', 'Mi', 'Ki'] as const) {
    const size = BINARY[unit] ?? 1
    if (bytes % size === 0) return `${bytes / size}${unit}`
  }
  return String(bytes)
}

/** The inverse, in the shortest exact form. */
export function limitsText(limits: Limits): Record<string, string> {
  const out: Record<string, string> = {}
  if (limits.cpuMillis !== undefined) {
    out['cpu'] = limits.cpuMillis % 1000 === 0 ? String(limits.cpuMillis / 1000) : `${limits.cpuMillis}m`
  }
  if (limits.memoryBytes !== undefined) out['memory'] = bytesText(limits.memoryBytes)
  if (limits.pids !== undefined) out['pids'] = String(limits.pids)
  return out
}
