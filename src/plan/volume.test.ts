import { describe, expect, it } from 'vitest'
import type { SandboxRecord, VolumeRecord } from '../model/records.ts'
import {
  aRef,
  aSandbox,
  aVolume,
  createStep,
  NOW,
  openRow,
  volumeFacts,
  volumeView,
} from '../../test/support/plan.ts'
import { planVolume } from './volume.ts'

const gone = (change: Partial<SandboxRecord> = {}): SandboxRecord =>
  aSandbox({ desired: 'deleted', desiredReason: 'user', ...change })
const planned = (change: Partial<VolumeRecord> = {}): VolumeRecord =>
  aVolume({ state: 'planned', engineCreatedAt: null, ...change })
const removeRow = {
  kind: 'remove-volume',
  uid: 'volume0000000000',
  name: 'workspace-volume0000000000',
  why: 'owner-deleted',
} as const

describe('making', () => {
  it('is made under its journaled name, and a retry reuses the open row', () => {
    const step = {
      kind: 'create-volume',
      uid: 'volume0000000000',
      name: 'workspace-volume0000000000',
    } as const
    expect(planVolume(volumeView(planned(), null)).step).toEqual(step)
    const row = openRow(step)
    expect(planVolume(volumeView(planned(), null, { open: [row] })).retryOf).toBe(row.id)
  })

  it('is recognised by its labels when the reply was lost, and kicks its sandbox', () => {
    const d = planVolume(volumeView(planned(), volumeFacts()))
    expect(d.step).toBeNull()
    expect(d.record.state).toBe('ready')
    expect(d.kicks).toContain('sandbox/sandbox000000000')
  })

  it('one that the engine made silently goes, if it is unlabelled, newer and empty; anything else stays', () => {
    const silent = volumeFacts({ labels: {}, createdAt: NOW })
    expect(planVolume(volumeView(planned(), silent)).need).toBe('empty')
    expect(planVolume(volumeView(planned(), silent, { empty: new Set([silent.name]) })).step?.kind).toBe(
      'remove-volume',
    )
    expect(planVolume(volumeView(planned(), silent, { empty: new Set() })).step).toBeNull()
    const older = volumeFacts({ labels: {}, createdAt: NOW - 100_000 })
    expect(planVolume(volumeView(planned(), older)).step).toBeNull()
    const labelled = volumeFacts({ labels: { 'holdfast.dev/installation': 'another' }, createdAt: NOW })
    expect(planVolume(volumeView(planned(), labelled)).step).toBeNull()
  })
})

it('a wait that was written before the clock stepped back is over, and is no step ahead', () => {
  const backoff = { attempts: 1, error: 'refused', code: 'failed', at: NOW }
  const held = planned({ backoff: { ...backoff, nextAt: NOW + 500 } })
  expect(planVolume(volumeView(held, null)).step).toBeNull()
  const stepped = planned({ backoff: { ...backoff, nextAt: NOW + 3_600_000 } })
  expect(planVolume(volumeView(stepped, null)).step?.kind).toBe('create-volume')
})

describe('the one removal rule', () => {
  const remove = (record: VolumeRecord, change: Parameters<typeof volumeView>[2]): string => {
    const d = planVolume(volumeView(record, volumeFacts({ name: record.physicalName }), change))
    return d.record.state === 'removing' ? 'removing' : d.step === null ? 'kept' : d.step.kind
  }

  it.each<[string, VolumeRecord, Parameters<typeof volumeView>[2], string]>([
    ['owner lives', aVolume(), {}, 'kept'],
    [
      'owner desired deleted, instance not confirmed absent',
      aVolume(),
      { owner: gone({ instance: aRef() }) },
      'kept',
    ],
    [
      'owner desired deleted, a create may still land',
      aVolume(),
      { owner: gone(), ownerOpen: [openRow(createStep)] },
      'kept',
    ],
    ['owner gone', aVolume(), { owner: gone() }, 'removing'],
    [
      'owner’s row is pruned, its tombstone stands',
      aVolume(),
      { owner: null, ownerBuried: true },
      'removing',
    ],
    ['owner’s row is missing without a tombstone: nobody knows', aVolume(), { owner: null }, 'kept'],
    ['retention retain', aVolume({ retention: 'retain' }), { owner: gone() }, 'kept'],
    [
      'another sandbox mounts it',
      aVolume(),
      { owner: gone(), holders: [aSandbox({ id: 'other00000000000' })] },
      'kept',
    ],
    ['no owner, no purge', aVolume({ owner: null, retention: 'retain' }), { owner: null }, 'kept'],
    [
      'purge recorded',
      aVolume({ owner: null, retention: 'retain', purge: { by: 'user', at: NOW } }),
      { owner: null },
      'removing',
    ],
  ])('%s', (_name, record, change, expected) => {
    expect(remove(record, change)).toBe(expected)
  })

  it('the mount check is committed together with the purge', () => {
    expect(planVolume(volumeView(aVolume(), volumeFacts(), { owner: gone() })).guardNoHolders).toBe(true)
  })

  it('removes only what still carries our labels for it', () => {
    const removing = aVolume({ state: 'removing', purge: { by: 'user', at: NOW } })
    expect(planVolume(volumeView(removing, volumeFacts())).step?.kind).toBe('remove-volume')
    expect(planVolume(volumeView(removing, volumeFacts({ labels: {} }))).step).toBeNull()
    const d = planVolume(
      volumeView(
        removing,
        volumeFacts({ labels: { ...volumeFacts().labels, 'holdfast.dev/uid': 'another000000000' } }),
      ),
    )
    expect(d.step).toBeNull()
  })

  it('one that is gone counts as removed, with a tombstone', () => {
    const removing = aVolume({ state: 'removing', purge: { by: 'user', at: NOW } })
    const d = planVolume(volumeView(removing, null, { open: [openRow(removeRow)] }))
    expect(d.record.state).toBe('removed')
    expect(d.tombstones).toMatchObject([{ kind: 'volume', name: 'workspace-volume0000000000' }])
    expect(d.settled).toMatchObject([{ id: 7, state: 'done' }])
  })

  it('an observation that failed removes nothing', () => {
    const removing = aVolume({ state: 'removing', purge: { by: 'user', at: NOW } })
    const d = planVolume(
      volumeView(removing, null, { observed: { known: false, error: 'away', since: NOW } }),
    )
    expect(d.step).toBeNull()
    expect(d.record.state).toBe('removing')
  })
})

describe('somebody else’s, lost, half-seeded', () => {
  it('an unmanaged volume is never made or removed, and its row goes when nobody mounts it', () => {
    const mine = aVolume({ managed: false, owner: null, retention: 'retain', engineCreatedAt: NOW - 900 })
    const facts = volumeFacts({ labels: {} })
    expect(planVolume(volumeView(mine, facts, { holders: [aSandbox()] })).step).toBeNull()
    const d = planVolume(volumeView({ ...mine, purge: { by: 'user', at: NOW } }, facts))
    expect(d.step).toBeNull()
    expect(d.record.state).toBe('removed')
  })

  it('an unmanaged volume that was replaced is lost', () => {
    const mine = aVolume({ managed: false, owner: null, engineCreatedAt: NOW - 5000 })
    expect(
      planVolume(volumeView(mine, volumeFacts({ labels: {} }), { holders: [aSandbox()] })).record.state,
    ).toBe('lost')
  })

  it('one that vanished is lost, and found again when it is back', () => {
    const lost = planVolume(volumeView(aVolume(), null))
    expect(lost.record.state).toBe('lost')
    expect(lost.step).toBeNull()
    expect(planVolume(volumeView(lost.record, volumeFacts())).record.state).toBe('ready')
  })

  it('a discarded make waits for a create that may still land, then goes', () => {
    const old = 'workspace-volume0000000000'
    const record = aVolume({ make: 2, physicalName: `${old}-2`, discarded: [old] })
    const seen = new Map([
      [`${old}-2`, volumeFacts({ name: `${old}-2` })],
      [old, volumeFacts({ name: old })],
    ])
    const observed = { known: true, value: seen, at: NOW } as const
    expect(
      planVolume(volumeView(record, null, { observed, ownerOpen: [openRow(createStep)] })).step,
    ).toBeNull()
    expect(planVolume(volumeView(record, null, { observed })).step).toMatchObject({
      kind: 'remove-volume',
      name: old,
    })
  })
})
