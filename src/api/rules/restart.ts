import type { RestartPolicy } from '../../model/records.ts'

/** The text has been matched by the schema before. */
export function parseRestartPolicy(text: string): RestartPolicy {
  if (text === 'always') return { kind: 'always' }
  if (text === 'no') return { kind: 'no' }
  const max = /^on-failure:(\d+)$/.exec(text)?.[1]
  return { kind: 'on-failure', max: max === undefined ? null : Number(max) }
}

export function restartPolicyText(policy: RestartPolicy): string {
  if (policy.kind !== 'on-failure') return policy.kind
  return policy.max === null ? 'on-failure' : `on-failure:${policy.max}`
}
