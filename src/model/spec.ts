import { createHash } from 'node:crypto'
import type { Mount, SandboxSpec } from './records.ts'

function canonical(value: unknown): string {
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  const entries = Object.entries(value)
    .filter(([, v]) => v !== undefined)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
  return `{${entries.map(([k, v]) => `${JSON.stringify(k)}:${canonical(v)}`).join(',')}}`
}

/**
 * The versioned hash that drift is judged by (DESIGN §4.8): over the user's normalised spec only, so that a change of
 * our own defaults replaces nothing. A field that a later version adds must be left out of the hash while it is absent.
 */
export function specHash(spec: SandboxSpec): string {
  const mounts = spec.mounts.map((m: Mount) =>
    m.kind === 'host'
      ? { host: m.hostPath, path: m.path, readOnly: m.readOnly }
      : { volume: m.volume, path: m.path, readOnly: m.readOnly },
  )
  const text = canonical({
    image: spec.image,
    entrypoint: spec.entrypoint,
    env: spec.env,
    limits: spec.limits,
    mounts,
    workingDir: spec.workingDir,
    user: spec.user,
  })
  return `v1-${createHash('sha256').update(text).digest('hex').slice(0, 40)}`
}

/** A hash of a version that this program does not know is no drift. */
export function isDrift(have: string, want: string): boolean {
  return have !== want && have.startsWith('v1-') && want.startsWith('v1-')
}
