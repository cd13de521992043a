import { fail, type FieldIssue } from '../../model/errors.ts'
import type { Limits, SandboxRecord, SandboxSpec } from '../../model/records.ts'
import { specHash } from '../../model/spec.ts'
import { envIssues } from '../rules/env.ts'
import { limitsText, parseLimits } from '../rules/quantity.ts'
import { parseRestartPolicy } from '../rules/restart.ts'
import type { UpdateBody } from '../schemas/create.ts'
import { requireAction, type Decide } from './lifecycle.ts'

function merged(
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

/** The checks of an update that need no record: all problems at once. */
export function checkUpdate(body: UpdateBody): void {
  const issues: FieldIssue[] = envIssues(body.env ?? {}, 'env')
  parseLimits(merged({}, body.resourceLimits ?? {}), issues)
  if (Object.keys(body).length === 0) issues.push({ path: '', message: 'nothing to change was given' })
  if (issues.length > 0) throw fail('INVALID_REQUEST', { issues })
}

function nextLimits(have: Limits, patch: Readonly<Record<string, string | null>>): Limits {
  return parseLimits(merged(limitsText(have), patch), [])
}

function nextSpec(spec: SandboxSpec, body: UpdateBody): SandboxSpec {
  return {
    ...spec,
    image: body.image?.uri ?? spec.image,
    entrypoint: body.entrypoint ?? spec.entrypoint,
    env: body.env === undefined ? spec.env : merged(spec.env, body.env),
    limits: body.resourceLimits === undefined ? spec.limits : nextLimits(spec.limits, body.resourceLimits),
  }
}

/** A new generation of the spec: a new instance on the same volumes. What is wanted of it (running, stopped) stays. */
export function update(body: UpdateBody): Decide {
  return (record, now) => {
    requireAction(record, 'update')
    const spec = nextSpec(record.spec, body)
    const hash = specHash(spec)
    const replaces = hash !== record.specHash
    const next: SandboxRecord = {
      ...record,
      backoff: null,
      breaker: null,
      restarts: 0,
      updatedAt: now,
      spec,
      specHash: hash,
      generation: record.generation + (replaces ? 1 : 0),
      // Another image may declare other volumes, so it is asked anew.
      imageId: replaces ? null : record.imageId,
      restartPolicy:
        body.restartPolicy === undefined ? record.restartPolicy : parseRestartPolicy(body.restartPolicy),
      stopGraceMs: body.stopGraceSeconds === undefined ? record.stopGraceMs : body.stopGraceSeconds * 1000,
      name: body.name === undefined ? record.name : body.name,
    }
    const message = replaces
      ? `A new spec was asked for (generation ${next.generation}): its instance is replaced, on the same volumes.`
      : 'Its settings were changed; its instance stays.'
    return {
      record: next,
      event: { subject: 'sandbox', id: record.id, type: 'Normal', reason: 'UpdateRequested', message },
    }
  }
}
