import type { InstanceFacts, VolumeFacts } from '../model/facts.ts'
import type { InstanceRef } from '../model/records.ts'
import type { Hold } from '../model/hold.ts'
import { LABEL, ownership } from '../model/labels.ts'
import { mayRemove } from './hold.ts'

/** What the store knows of a uid that an engine object carries. */
export interface KnownObject {
  readonly row: boolean
  readonly tombstone: boolean
}

export type SweepVerdict =
  | { readonly kind: 'known' }
  /** Another installation's, or one that only carries copied labels. */
  | { readonly kind: 'not-ours' }
  /** Its uid has a tombstone: its delete was finished, so what remains is removed. */
  | { readonly kind: 'remnant' }
  /** Our installation, and a uid that nobody knows: listed, never removed without a person. */
  | { readonly kind: 'quarantine' }

/** Judges an engine object that the list showed (DESIGN §1.3). */
export function judge(
  object: Pick<InstanceFacts | VolumeFacts, 'name' | 'labels'>,
  installation: string,
  known: (uid: string) => KnownObject,
  hold: Hold | null,
): SweepVerdict {
  if (ownership(object, installation) !== 'ours') return { kind: 'not-ours' }
  const k = known(object.labels[LABEL.uid] ?? '')
  if (k.row) return { kind: 'known' }
  return k.tombstone && mayRemove(hold) ? { kind: 'remnant' } : { kind: 'quarantine' }
}

/**
 * A create of ours that landed a second time, long after its call was given up and the instance that its retry made
 * was removed by somebody. Nothing ever ran in it: it is a remnant, and no leave to bring a lost sandbox back.
 */
export function isTwin(ref: InstanceRef, facts: InstanceFacts): boolean {
  return (
    ref.engineId !== null &&
    facts.id !== ref.engineId &&
    facts.startedAt === null &&
    facts.state !== 'running'
  )
}
