import type { InstanceFacts, VolumeFacts } from '../model/facts.ts'
import type { Hold } from '../model/hold.ts'
import { LABEL, ownership } from '../model/labels.ts'
import type { JournalRow, QuarantineRow, SandboxRecord, VolumeRecord } from '../model/records.ts'
import type { AuditWire, FindingKind } from './schemas/operations.ts'

export interface Finding {
  readonly kind: FindingKind
  readonly name: string
  readonly detail: string
}

/** What the store and the engine say, each read whole. */
export interface AuditView {
  readonly installation: string
  readonly now: number
  /** Every row that is not a tombstone. */
  readonly sandboxes: readonly SandboxRecord[]
  readonly volumes: readonly VolumeRecord[]
  readonly open: readonly JournalRow[]
  readonly quarantine: readonly QuarantineRow[]
  readonly corrupt: readonly { table: string; id: string; error: string }[]
  readonly hold: Hold | null
  readonly instances: readonly InstanceFacts[]
  readonly engineVolumes: readonly VolumeFacts[]
}

/** Names and uids that the journal has given out and no row holds yet, or no more. */
function journaled(open: readonly JournalRow[]): { names: Set<string>; uids: Set<string> } {
  const names = new Set<string>()
  const uids = new Set<string>()
  for (const { step } of open) {
    if ('name' in step) names.add(step.name)
    if ('uid' in step) uids.add(step.uid)
  }
  return { names, uids }
}

function instanceFindings(view: AuditView): Finding[] {
  const out: Finding[] = []
  const { names } = journaled(view.open)
  const quarantined = new Set(view.quarantine.filter((q) => q.kind === 'instance').map((q) => q.name))
  const known = new Map<string, string>()
  for (const { id, instance } of view.sandboxes) if (instance !== null) known.set(instance.uid, id)
  const present = new Set(view.instances.map((i) => i.name))
  for (const facts of view.instances) {
    const whose = ownership(facts, view.installation)
    if (whose === 'copied') {
      out.push({
        kind: 'copied-labels',
        name: facts.name,
        detail: 'it carries our labels under a name that is not theirs; it is left alone',
      })
    }
    if (whose !== 'ours' || quarantined.has(facts.name)) continue
    if (known.has(facts.labels[LABEL.uid] ?? '') || names.has(facts.name)) continue
    const sandbox = facts.labels[LABEL.sandbox] ?? 'unknown'
    out.push({
      kind: 'orphan-instance',
      name: facts.name,
      detail: `no row has it (its label names sandbox ${sandbox})`,
    })
  }
  for (const { id, instance, status } of view.sandboxes) {
    if (instance === null || instance.engineId === null) continue
    if (present.has(instance.name) || names.has(instance.name)) continue
    out.push({
      kind: 'missing-instance',
      name: instance.name,
      detail: `sandbox ${id} (${status.phase}) has no instance on the engine`,
    })
  }
  return out
}

function volumeFindings(view: AuditView): Finding[] {
  const out: Finding[] = []
  const { names } = journaled(view.open)
  const quarantined = new Set(view.quarantine.filter((q) => q.kind === 'volume').map((q) => q.name))
  const ours = new Set(view.volumes.flatMap((v) => (v.managed ? [v.physicalName, ...v.discarded] : [])))
  const present = new Set(view.engineVolumes.map((v) => v.name))
  for (const facts of view.engineVolumes) {
    const whose = ownership(facts, view.installation)
    if (whose === 'copied') {
      out.push({
        kind: 'copied-labels',
        name: facts.name,
        detail: 'it carries our labels under a name that is not theirs; it is left alone',
      })
    }
    if (whose !== 'ours' || quarantined.has(facts.name) || ours.has(facts.name) || names.has(facts.name))
      continue
    out.push({
      kind: 'orphan-volume',
      name: facts.name,
      detail: `no row has it (uid ${facts.labels[LABEL.uid] ?? 'unknown'})`,
    })
  }
  for (const row of view.volumes) {
    if (row.state !== 'ready' && row.state !== 'lost') continue
    if (present.has(row.physicalName) || names.has(row.physicalName)) continue
    out.push({
      kind: 'missing-volume',
      name: row.physicalName,
      detail: `volume ${row.uid} (${row.claim}) is not on the engine`,
    })
  }
  return out
}

/** Engine objects against rows, both ways (DESIGN §1.3). Pure. */
export function auditFindings(view: AuditView): Finding[] {
  return [
    ...instanceFindings(view),
    ...volumeFindings(view),
    ...view.quarantine.map((q) => ({
      kind: 'quarantined' as const,
      name: q.name,
      detail: `${q.kind} with our labels that nobody knows, kept until a person removes it: ${q.detail}`,
    })),
    ...view.open
      .filter((row) => row.deadlineAt < view.now)
      .map((row) => ({
        kind: 'open-step' as const,
        name: row.key,
        detail: `${row.step.kind} is past its limit after ${row.attempts} attempt(s); it is settled by the next look`,
      })),
    ...view.corrupt.map((c) => ({
      kind: 'corrupt-row' as const,
      name: `${c.table}/${c.id}`,
      detail: c.error,
    })),
  ]
}

export function auditCounts(view: AuditView): AuditWire['counts'] {
  return {
    rows: view.sandboxes.length,
    instances: view.instances.filter((i) => ownership(i, view.installation) === 'ours').length,
    volumes: view.engineVolumes.filter((v) => ownership(v, view.installation) === 'ours').length,
    openSteps: view.open.length,
  }
}

/** True when nothing needs anybody: copied labels are a user's image or commit, not a leak. */
export function auditOk(findings: readonly Finding[]): boolean {
  return findings.every((f) => f.kind === 'copied-labels')
}

const keyOf = (f: Finding): string => `${f.kind} ${f.name}`

/**
 * What two audits in a row agree on: engine and store cannot be read at one instant, so what one of them alone shows
 * was on its way.
 */
export function lasting(first: readonly Finding[], second: readonly Finding[]): Finding[] {
  const before = new Set(first.map(keyOf))
  return second.filter((f) => before.has(keyOf(f)))
}
