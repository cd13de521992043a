import { describe, expect, it } from 'vitest'
import type { InstanceFacts, VolumeFacts } from '../model/facts.ts'
import { labelsFor } from '../model/labels.ts'
import type { JournalRow, SandboxRecord, VolumeRecord } from '../model/records.ts'
import { auditCounts, auditFindings, auditOk, lasting, type AuditView, type Finding } from './audit.ts'

const installation = 'inst'

function instance(name: string, uid: string, over: Partial<InstanceFacts> = {}): InstanceFacts {
  return {
    id: `id-${name}`,
    name,
    labels: labelsFor({ installation, uid, name, kind: 'instance', sandbox: 's1', instance: 1 }),
    state: 'running',
    paused: false,
    createdAt: 1,
    startedAt: 1,
    finishedAt: null,
    exitCode: null,
    oomKilled: false,
    mounts: [],
    run: { engine: 'e', boot: 'b' },
    ...over,
  }
}

const volume = (name: string, uid: string): VolumeFacts => ({
  name,
  labels: labelsFor({ installation, uid, name, kind: 'volume' }),
  createdAt: 1,
})

function view(over: Partial<AuditView>): AuditView {
  return {
    installation,
    now: 1_000,
    sandboxes: [],
    volumes: [],
    open: [],
    quarantine: [],
    corrupt: [],
    hold: null,
    instances: [],
    engineVolumes: [],
    ...over,
  }
}

const sandbox = (over: Partial<SandboxRecord> = {}): SandboxRecord =>
  ({
    id: 's1',
    status: { phase: 'Running', reason: '', message: '', difference: '', next: '', nextAt: null },
    instance: {
      number: 1,
      name: 'hf-s1-1',
      uid: 'u1',
      engineId: 'id-hf-s1-1',
      specHash: '',
      generation: 1,
      restartSeq: 0,
      run: null,
      startedAt: 1,
    },
    ...over,
  }) as SandboxRecord

const row = (over: Partial<VolumeRecord> = {}): VolumeRecord =>
  ({
    uid: 'v1',
    claim: 'data',
    physicalName: 'data-v1',
    discarded: [],
    managed: true,
    state: 'ready',
    ...over,
  }) as VolumeRecord

const step = (over: Partial<JournalRow>): JournalRow =>
  ({
    key: 'sandbox/s1',
    state: 'open',
    attempts: 1,
    createdAt: 1,
    deadlineAt: 9_999,
    step: { kind: 'pull-image', image: 'x' },
    ...over,
  }) as JournalRow

const kinds = (findings: readonly Finding[]): string[] => findings.map((f) => `${f.kind} ${f.name}`)

describe('auditFindings', () => {
  it('finds nothing where rows and objects agree', () => {
    const whole = view({
      sandboxes: [sandbox()],
      volumes: [row()],
      instances: [instance('hf-s1-1', 'u1')],
      engineVolumes: [volume('data-v1', 'v1'), { name: 'theirs', labels: {}, createdAt: 1 }],
    })
    expect(auditFindings(whole)).toEqual([])
    expect(auditCounts(whole)).toEqual({ rows: 1, instances: 1, volumes: 1, openSteps: 0 })
  })

  it('finds what the engine has and no row', () => {
    const found = auditFindings(
      view({ instances: [instance('hf-x-1', 'ux')], engineVolumes: [volume('data-vx', 'vx')] }),
    )
    expect(kinds(found)).toEqual(['orphan-instance hf-x-1', 'orphan-volume data-vx'])
    expect(auditOk(found)).toBe(false)
  })

  it('finds what a row has and not the engine', () => {
    const found = auditFindings(
      view({
        sandboxes: [sandbox()],
        volumes: [row(), row({ uid: 'v2', physicalName: 'data-v2', state: 'lost' })],
      }),
    )
    expect(kinds(found)).toEqual([
      'missing-instance hf-s1-1',
      'missing-volume data-v1',
      'missing-volume data-v2',
    ])
  })

  it('expects nothing of what was only planned, is being made, or was never known to the engine', () => {
    const found = auditFindings(
      view({
        sandboxes: [
          sandbox({ instance: null }),
          sandbox({ instance: { ...sandbox().instance, engineId: null } as SandboxRecord['instance'] }),
        ],
        volumes: [row({ state: 'planned' }), row({ state: 'removed' })],
      }),
    )
    expect(found).toEqual([])
  })

  it('an object whose step is open is on its way, not an orphan', () => {
    const found = auditFindings(
      view({
        open: [
          step({ step: { kind: 'create-instance', name: 'hf-s1-2', uid: 'u2', number: 2, specHash: '' } }),
          step({ step: { kind: 'create-volume', name: 'data-v2', uid: 'v2' } }),
        ],
        instances: [instance('hf-s1-2', 'u2')],
        engineVolumes: [volume('data-v2', 'v2')],
      }),
    )
    expect(found).toEqual([])
  })

  it('a discarded make is known', () => {
    expect(
      auditFindings(
        view({
          volumes: [row({ state: 'planned', physicalName: 'w-v1-2', discarded: ['w-v1'] })],
          engineVolumes: [volume('w-v1', 'v1')],
        }),
      ),
    ).toEqual([])
  })

  it('leaves alone what is another installation’s, and tells copied labels apart', () => {
    const copied = { ...instance('theirs', 'u1'), labels: instance('hf-s1-1', 'u1').labels }
    const other = instance('hf-y-1', 'uy', {
      labels: labelsFor({ installation: 'other', uid: 'uy', name: 'hf-y-1', kind: 'instance' }),
    })
    const found = auditFindings(
      view({ sandboxes: [sandbox()], instances: [instance('hf-s1-1', 'u1'), copied, other] }),
    )
    expect(kinds(found)).toEqual(['copied-labels theirs'])
    expect(auditOk(found)).toBe(true)
  })

  it('quarantined objects are listed once', () => {
    const q = {
      engine: 'docker',
      kind: 'instance' as const,
      name: 'hf-z-1',
      engineId: 'i',
      firstSeenAt: 1,
      lastSeenAt: 2,
      detail: 'uid unknown',
    }
    expect(kinds(auditFindings(view({ quarantine: [q], instances: [instance('hf-z-1', 'uz')] })))).toEqual([
      'quarantined hf-z-1',
    ])
  })

  it('an open step is only a finding past its limit', () => {
    expect(
      kinds(auditFindings(view({ open: [step({}), step({ key: 'volume/v1', deadlineAt: 999 })] }))),
    ).toEqual(['open-step volume/v1'])
  })

  it('an unreadable row is one', () => {
    expect(kinds(auditFindings(view({ corrupt: [{ table: 'sandboxes', id: 's9', error: 'bad' }] })))).toEqual(
      ['corrupt-row sandboxes/s9'],
    )
  })
})

describe('lasting', () => {
  it('keeps what both looks saw, as the second tells it', () => {
    const a: Finding = { kind: 'orphan-instance', name: 'x', detail: '1' }
    const b: Finding = { kind: 'orphan-volume', name: 'x', detail: '1' }
    expect(lasting([a, b], [{ ...a, detail: '2' }])).toEqual([{ ...a, detail: '2' }])
  })
})
