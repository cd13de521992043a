import { fail, type FieldIssue } from '../../model/errors.ts'
import type { Limits, RestartPolicy } from '../../model/records.ts'
import type { CreateBody } from '../schemas/create.ts'
import type { ApiConfig } from '../deps.ts'
import { checkVolumes, type MountRequest } from './volumes.ts'
import { envIssues } from './env.ts'
import { metadataIssues } from './metadata.ts'
import { hostPathAllowed, isUnder, WORKSPACE_PATH } from './paths.ts'
import { parseLimits } from './quantity.ts'
import { parseRestartPolicy } from './restart.ts'

/** Default grace between the polite stop and the kill, seconds (Docker's own). */
const GRACE_S = 10

/** A create request that is known to be well-formed; nothing in it has been looked up. */
export interface CreateRequest {
  readonly name: string | null
  readonly image: string
  readonly entrypoint: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly limits: Limits
  readonly metadata: Readonly<Record<string, string>>
  readonly timeoutMs: number | null
  readonly restartPolicy: RestartPolicy
  readonly workspace: boolean
  readonly stopGraceMs: number
  readonly workingDir: string | null
  readonly user: string | null
  readonly mounts: readonly MountRequest[]
}

const isEmptyObject = (v: unknown): boolean =>
  typeof v === 'object' && v !== null && Object.keys(v).length === 0

/** What the upstream protocol has and this version does not: refused by name, since ignoring it would be a lie. */
function refuseUnavailable(body: CreateBody): void {
  const given: [boolean, string][] = [
    [body.image?.auth !== undefined && body.image.auth !== null, 'image.auth'],
    [typeof body.snapshotId === 'string', 'snapshotId'],
    [body.extensions?.['poolRef'] !== undefined, 'extensions.poolRef'],
    [
      body.extensions?.['access.renew.extend.seconds'] !== undefined,
      'extensions["access.renew.extend.seconds"]',
    ],
    [body.extensions?.['holdfast.idleTimeout'] !== undefined, 'extensions["holdfast.idleTimeout"]'],
    [
      body.networkPolicy !== undefined && body.networkPolicy !== null && !isEmptyObject(body.networkPolicy),
      'networkPolicy',
    ],
    [body.credentialProxy !== undefined && body.credentialProxy !== null, 'credentialProxy'],
    [body.secureAccess === true, 'secureAccess'],
    [body.platform !== undefined && body.platform !== null, 'platform'],
    [typeof body.idleTimeout === 'number', 'idleTimeout'],
    [body.resourceLimits?.['gpu'] !== undefined, 'resourceLimits.gpu'],
  ]
  for (const [i, volume] of (body.volumes ?? []).entries()) {
    given.push([typeof volume.subPath === 'string' && volume.subPath !== '', `volumes[${i}].subPath`])
    given.push([volume.ossfs !== undefined && volume.ossfs !== null, `volumes[${i}].ossfs`])
  }
  const first = given.find(([is]) => is)
  if (first !== undefined)
    throw fail('NOT_IMPLEMENTED', { what: first[1], detail: 'this version does not have it yet' })
}

function sourceIssues(body: CreateBody): FieldIssue[] {
  const pool = body.extensions?.['poolRef'] !== undefined
  const sources = [body.image !== undefined && body.image !== null, typeof body.snapshotId === 'string', pool]
  const issues: FieldIssue[] = []
  if (sources.filter(Boolean).length !== 1) {
    issues.push({
      path: 'image',
      message: 'exactly one of image, snapshotId and extensions.poolRef is needed',
    })
  }
  if (pool && (body.volumes ?? []).length > 0) {
    issues.push({ path: 'volumes', message: 'a pool reference cannot be combined with volumes' })
  }
  if (pool && body.platform !== undefined && body.platform !== null) {
    issues.push({ path: 'platform', message: 'a pool reference cannot be combined with a platform' })
  }
  if (body.platform?.os !== undefined && body.platform.os !== 'linux') {
    issues.push({ path: 'platform.os', message: `no engine here runs ${body.platform.os}` })
  }
  for (const [i, volume] of (body.volumes ?? []).entries()) {
    if ((volume.subPath ?? '').split('/').includes('..')) {
      issues.push({ path: `volumes[${i}].subPath`, message: 'must not contain ".."' })
    }
  }
  return issues
}

interface Extended {
  readonly name: string | null
  readonly restartPolicy: string
  readonly workspace: boolean
}

/** Top-level fields and their twins under `extensions`, for clients that know only the upstream fields. */
function readExtensions(body: CreateBody, issues: FieldIssue[]): Extended {
  const ext = body.extensions ?? {}
  for (const key of Object.keys(ext)) {
    if (!['holdfast.name', 'holdfast.restartPolicy', 'holdfast.workspace', 'poolRef'].includes(key)) {
      issues.push({ path: `extensions["${key}"]`, message: 'unknown extension' })
    }
  }
  const pick = (
    field: string,
    top: string | null | undefined,
    pattern: RegExp,
    rule: string,
  ): string | null => {
    const twin = ext[`holdfast.${field}`]
    const path = `extensions["holdfast.${field}"]`
    if (twin !== undefined && !pattern.test(twin)) issues.push({ path, message: rule })
    if (twin !== undefined && top !== undefined && top !== null && top !== twin) {
      issues.push({ path, message: `differs from ${field}` })
    }
    return top ?? twin ?? null
  }
  const topWorkspace = typeof body.workspace === 'boolean' ? String(body.workspace) : null
  return {
    name: pick(
      'name',
      body.name,
      /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/,
      'must be a DNS label of at most 63 characters',
    ),
    restartPolicy:
      pick(
        'restartPolicy',
        body.restartPolicy,
        /^(no|always|on-failure(:[1-9]\d{0,5})?)$/,
        'must be no, always, on-failure or on-failure:N',
      ) ?? 'no',
    workspace: pick('workspace', topWorkspace, /^(true|false)$/, 'must be true or false') !== 'false',
  }
}

/**
 * Every check that needs neither store nor engine. Throws `SANDBOX::INVALID_PARAMETER` with all problems,
 * `NOT_IMPLEMENTED` or `HOST_PATH::NOT_ALLOWED`.
 */
export function checkCreate(body: CreateBody, config: Pick<ApiConfig, 'allowedHostPaths'>): CreateRequest {
  const issues = sourceIssues(body)
  if (issues.length > 0) throw fail('SANDBOX::INVALID_PARAMETER', { issues })
  refuseUnavailable(body)
  const image = body.image?.uri ?? ''
  const extended = readExtensions(body, issues)
  issues.push(...envIssues(body.env ?? {}, 'env'), ...metadataIssues(body.metadata ?? {}, 'metadata'))
  const limits = parseLimits(body.resourceLimits ?? {}, issues)
  const mounts = checkVolumes(body.volumes ?? [], issues)
  if (issues.length > 0) throw fail('SANDBOX::INVALID_PARAMETER', { issues })
  checkHostPaths(image, mounts, config.allowedHostPaths)
  const covered = mounts.some((m) => isUnder(WORKSPACE_PATH, m.path))
  return {
    name: extended.name,
    image,
    entrypoint: body.entrypoint ?? [],
    env: body.env ?? {},
    limits,
    metadata: body.metadata ?? {},
    timeoutMs: typeof body.timeout === 'number' ? body.timeout * 1000 : null,
    restartPolicy: parseRestartPolicy(extended.restartPolicy),
    workspace: extended.workspace && !covered,
    stopGraceMs: (body.stopGraceSeconds ?? GRACE_S) * 1000,
    workingDir: body.workingDir ?? null,
    user: body.user ?? null,
    mounts,
  }
}

/** A directory as image reads the host as a host mount does, so the same prefixes rule it. */
export function checkImagePath(image: string, field: string, prefixes: readonly string[]): void {
  if (!image.startsWith('dir:')) return
  const path = image.slice('dir:'.length)
  if (!hostPathAllowed(path, prefixes)) throw fail('HOST_PATH::NOT_ALLOWED', { field, path })
}

function checkHostPaths(image: string, mounts: readonly MountRequest[], prefixes: readonly string[]): void {
  checkImagePath(image, 'image.uri', prefixes)
  for (const mount of mounts) {
    if (mount.kind === 'host' && !hostPathAllowed(mount.hostPath, prefixes)) {
      throw fail('HOST_PATH::NOT_ALLOWED', { field: mount.field, path: mount.hostPath })
    }
  }
}
