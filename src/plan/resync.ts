import { sameRun, type InstanceFacts, type VolumeFacts } from '../model/facts.ts'
import { isExactly, LABEL } from '../model/labels.ts'
import type { SandboxRecord, VolumeRecord } from '../model/records.ts'
import { isDrift } from '../model/spec.ts'
import { isExpectedVolume } from './mounts.ts'

/**
 * Whether a full list gives reason to look at a sandbox more closely. Saying yes too often costs one look; a sandbox
 * that is as wanted must give no, so that an idle installation stays still.
 */
export function sandboxNeedsPass(
  record: SandboxRecord,
  facts: InstanceFacts | null,
  installation: string,
): boolean {
  if (record.deletedAt !== null) return false
  // Whatever waits for a time has its timer set by a pass, and timers do not outlive a process.
  if (record.status.nextAt !== null || record.restarts > 0 || record.breaker !== null) return true
  if (record.observedGeneration !== record.generation) return true
  const ref = record.instance
  if (ref === null) return record.desired !== 'stopped' || record.status.phase !== 'Stopped'
  if (facts === null) return record.status.phase !== 'Lost'
  if (!isExactly(facts, { installation, name: ref.name, uid: ref.uid })) return true
  switch (record.desired) {
    case 'running':
      return (
        record.status.phase !== 'Running' ||
        facts.state !== 'running' ||
        facts.paused ||
        facts.startedAt !== ref.startedAt ||
        !sameRun(facts.run, ref.run) ||
        isDrift(facts.labels[LABEL.specHash] ?? '', record.specHash)
      )
    case 'paused':
      return record.status.phase !== 'Paused' || facts.state !== 'running' || !facts.paused
    case 'stopped':
      return record.status.phase !== 'Stopped' || facts.state !== 'stopped'
    case 'deleted':
      return true
  }
}

/** The same for a volume. `ownerGoing` is true when its sandbox is desired deleted, or finished. */
export function volumeNeedsPass(
  record: VolumeRecord,
  facts: VolumeFacts | null,
  installation: string,
  ownerGoing: boolean,
): boolean {
  if (record.state === 'removed') return false
  if (record.state !== 'ready' || record.discarded.length > 0 || record.purge !== null) return true
  if (facts === null || !isExpectedVolume(record, facts, installation)) return true
  return ownerGoing && record.retention === 'delete'
}
