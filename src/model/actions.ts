import type { Desired, Phase, SandboxRecord } from './records.ts'

export type Action =
  | 'start'
  | 'stop'
  | 'restart'
  | 'pause'
  | 'resume'
  | 'recover'
  | 'update'
  | 'delete'
  | 'renew'
  | 'exec'

/**
 * What a user may ask of a sandbox now. Every state except deleted has a legal way on (DESIGN §4): `start` and
 * `recover` work from Failed, Lost and Blocked. Asking for what already holds is allowed and changes nothing,
 * so that a retry after a lost answer is no error.
 */
export function possibleActions(
  record: Pick<SandboxRecord, 'desired' | 'deletedAt' | 'status'>,
): readonly Action[] {
  if (record.deletedAt !== null || record.desired === 'deleted') return []
  const always: Action[] = ['delete', 'renew', 'stop', 'restart']
  const phase: Phase = record.status.phase
  const desired: Desired = record.desired
  const out: Action[] = [...always, 'start', 'resume']
  if (desired === 'running' && (phase === 'Running' || phase === 'Pausing' || phase === 'Resuming'))
    out.push('pause')
  // A new spec needs a new instance, and what is frozen in the present one would be lost without a word.
  out.push(desired === 'paused' ? 'pause' : 'update')
  // While it is wanted running, asking again is a retry, whatever the first one has changed already.
  const troubled = phase === 'Failed' || phase === 'Lost' || phase === 'Blocked' || phase === 'Unknown'
  if (desired === 'running' || troubled) out.push('recover')
  if (phase === 'Running') out.push('exec')
  return out
}
