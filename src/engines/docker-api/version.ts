import { EngineError } from '../../model/facts.ts'

/** Versions of the HTTP API that a driver speaks, as `1.41`. */
export interface VersionRange {
  readonly min: string
  readonly max: string
}

/** What `GET /version` tells, as far as it is used. */
export interface VersionAnswer {
  readonly Version: string
  readonly ApiVersion: string
  readonly MinAPIVersion?: string
  readonly Os?: string
  readonly Arch?: string
  readonly KernelVersion?: string
}

/** Negative when `a` is the older one. */
export function compareVersions(a: string, b: string): number {
  const [aMajor = 0, aMinor = 0] = a.split('.').map(Number)
  const [bMajor = 0, bMinor = 0] = b.split('.').map(Number)
  return aMajor - bMajor || aMinor - bMinor
}

const older = (a: string, b: string): string => (compareVersions(a, b) < 0 ? a : b)

/** The newest version that both sides speak. Throws `EngineError` of kind `unsupported` when there is none. */
export function chooseVersion(
  answer: unknown,
  known: VersionRange,
  endpoint: string,
): { readonly api: string; readonly engine: VersionAnswer } {
  const engine = answer as Partial<VersionAnswer> | null
  const { ApiVersion: newest, Version: version } = engine ?? {}
  if (newest === undefined || version === undefined || !/^\d+\.\d+$/.test(newest))
    throw new EngineError(
      'failed',
      'none',
      `What answers at ${endpoint} is no container engine: it tells no API version`,
    )
  const oldest = engine?.MinAPIVersion ?? newest
  const api = older(newest, known.max)
  if (compareVersions(api, known.min) < 0 || compareVersions(api, oldest) < 0)
    throw new EngineError(
      'unsupported',
      'none',
      `The engine ${version} at ${endpoint} speaks API ${oldest} to ${newest}, and Holdfast speaks ${known.min} to ${known.max}`,
    )
  return { api, engine: { ...engine, ApiVersion: newest, Version: version } }
}
