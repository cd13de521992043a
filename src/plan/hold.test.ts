import { describe, expect, it } from 'vitest'
import {
  aSandbox,
  aVolume,
  facts,
  INSTALLATION,
  NOW,
  OTHER_RUN,
  openRow,
  createStep,
  view,
  volumeFacts,
  volumeView,
  withInstance,
} from '../../test/support/plan.ts'
import type { Hold } from '../model/hold.ts'
import type { SandboxRecord } from '../model/records.ts'
import { mayExpire } from './hold.ts'
import { planSandbox } from './sandbox.ts'
import { judge } from './sweep.ts'
import { planVolume } from './volume.ts'

/** Began after the wishes of `aSandbox`, which are a second old. */
const hold: Hold = { reason: 'restored', since: NOW - 100, backupAt: NOW - 10_000 }
const after = { desiredAt: NOW - 50, desiredReason: 'user' } as const
const stopped = facts({ state: 'stopped', startedAt: NOW - 500, finishedAt: NOW - 200, exitCode: 0 })

const kindOf = (
  record: SandboxRecord,
  ...rest: [Parameters<typeof view>[1], Parameters<typeof view>[2]?]
) => {
  const d = planSandbox(view(record, rest[0], { hold, ...rest[1] }))
  return d.step?.kind ?? d.need ?? d.record.status.reason
}

describe('a wish that is older than the hold', () => {
  it('leaves alone what is as it was wanted', () => {
    const d = planSandbox(view(withInstance(), facts(), { hold }))
    expect(d).toMatchObject({ step: null, record: { status: { phase: 'Running' } } })
  })

  it.each([
    ['a create', aSandbox(), null],
    ['a stop of what runs', withInstance({ desired: 'stopped' }), facts()],
    ['a pause', withInstance({ desired: 'paused' }), facts()],
    ['a thaw', withInstance(), facts({ paused: true })],
    ['a removal', withInstance({ desired: 'deleted' }), facts()],
    ['the end of a delete', withInstance({ desired: 'deleted' }), null],
    ['a replacement by policy', withInstance({ restartPolicy: { kind: 'always' } }), null],
    ['an update', withInstance({ specHash: `v1-${'0'.repeat(40)}` }), facts()],
  ] as const)('%s is not done, and nothing of it is noted', (_name, record, seen) => {
    const d = planSandbox(
      view(record, seen, { hold, image: { id: 'i', entrypoint: [], command: [], volumes: [], user: '' } }),
    )
    expect(d).toMatchObject({
      step: null,
      tombstones: [],
      newVolumes: [],
      changedVolumes: [],
      settled: [],
      events: [],
    })
    expect({ ...d.record, status: null }).toEqual({ ...record, status: null })
    expect(d.record.status.reason).toBe('Held')
    expect(d.record.status.message).toContain('holdfast rebuild --confirm')
    // Without the hold each of them is done: the cases test what they say.
    const free = planSandbox(view(record, seen))
    expect(free.step !== null || free.tombstones.length > 0).toBe(true)
  })

  it('starts again what its engine ended since, and nothing that ended before: that may have been a wish', () => {
    expect(kindOf(withInstance(), facts({ ...stopped, run: OTHER_RUN }))).toBe('Held')
    const ended = facts({ ...stopped, run: OTHER_RUN, finishedAt: NOW - 10 })
    expect(kindOf(withInstance(), ended)).toBe('start-instance')
    expect(kindOf(withInstance(), ended, { strangers: undefined })).toBe('strangers')
  })

  it('an instance that is gone is Lost, as without a hold', () => {
    const d = planSandbox(view(withInstance(), null, { hold }))
    expect(d).toMatchObject({ step: null, tombstones: [], record: { status: { phase: 'Lost' } } })
  })

  it('a half-seeded volume is not made anew: it may have been finished and written to since', () => {
    const record = aSandbox({ ...after })
    const volumes = [aVolume({ seed: 'seeding', createdAt: NOW - 5_000 })]
    expect(planSandbox(view(record, null, { volumes })).changedVolumes).toHaveLength(1)
    expect(kindOf(aSandbox(), null, { volumes })).toBe('Held')
    const kept = planVolume(volumeView(volumes[0] ?? aVolume(), volumeFacts(), { hold }))
    expect(kept.record).toMatchObject({ seed: 'seeded', state: 'ready', discarded: [] })
    // Also when somebody asks for the sandbox before its volume was looked at.
    for (const seed of ['seeding', 'pending'] as const) {
      const early = planSandbox(
        view(record, null, { hold, volumes: [aVolume({ seed, createdAt: NOW - 5_000 })] }),
      )
      expect(early).toMatchObject({ step: null, changedVolumes: [], kicks: ['volume/volume0000000000'] })
    }
  })
})

describe('a wish that is newer than the hold', () => {
  it('is done, once the engine was asked for instances that the store does not know', () => {
    const record = aSandbox(after)
    expect(kindOf(record, null, { strangers: undefined })).toBe('strangers')
    expect(kindOf(record, null)).toBe('create-instance')
    expect(kindOf(withInstance({ ...after, desired: 'stopped' }), facts())).toBe('stop-instance')
  })

  it('does not remove: an update waits while the present instance runs on', () => {
    const record = withInstance({ ...after, specHash: `v1-${'0'.repeat(40)}` })
    expect(kindOf(record, facts())).toBe('Held')
    expect(kindOf(record, stopped)).toBe('Held')
  })
})

describe('a newer instance that the store does not know', () => {
  const strangers = ['hf-sandbox000000000-2']

  it('keeps a second one from being made beside it, also once the hold is over', () => {
    for (const at of [hold, null]) {
      const d = planSandbox(view(aSandbox(after), null, { hold: at, strangers }))
      expect(d).toMatchObject({ step: null, record: { instance: null, status: { reason: 'NewerInstance' } } })
      expect(d.record.status.message).toContain(strangers[0])
    }
  })

  it('keeps one that is gone from being replaced, whoever asks', () => {
    const record = withInstance({ ...after, recoverSeq: 1, mayReplaceVolumes: true })
    const d = planSandbox(view(record, null, { hold: null, strangers }))
    expect(d).toMatchObject({ step: null, tombstones: [], record: { instance: { number: 1 } } })
    expect(planSandbox(view(record, null)).step?.kind).toBe('create-instance')
  })

  it('does not disturb an instance that runs', () => {
    const d = planSandbox(view(withInstance(), facts(), { strangers }))
    expect(d.record.status.phase).toBe('Running')
  })
})

describe('a volume', () => {
  const gone = aSandbox({ desired: 'deleted', deletedAt: NOW - 20, instance: null })

  it.each([
    ['that goes with its sandbox', aVolume(), volumeFacts(), { owner: gone }],
    [
      'whose purge was recorded',
      aVolume({ state: 'removing', purge: { by: 'user', at: 1 } }),
      volumeFacts(),
      {},
    ],
    ['that is gone and to be buried', aVolume({ state: 'removing', purge: { by: 'user', at: 1 } }), null, {}],
    ['of an earlier make', aVolume({ discarded: ['old'] }), volumeFacts(), {}],
  ] as const)('%s is not removed', (_name, record, seen, change) => {
    const d = planVolume(volumeView(record, seen, { ...change, hold }))
    expect(d).toMatchObject({ step: null, tombstones: [], guardNoHolders: false })
    expect({ ...d.record, message: '' }).toEqual({ ...record, message: '' })
    expect(d.record.message).toContain('held')
    const free = planVolume(volumeView(record, seen, change))
    expect(free.step !== null || free.guardNoHolders || free.tombstones.length > 0).toBe(true)
  })

  it('that was to be made is made only for whoever asks since', () => {
    const planned = aVolume({ state: 'planned', seed: 'pending', createdAt: NOW - 5_000 })
    expect(planVolume(volumeView(planned, null, { hold, holders: [aSandbox()] })).step).toBeNull()
    expect(planVolume(volumeView(planned, null, { hold, holders: [aSandbox(after)] })).step?.kind).toBe(
      'create-volume',
    )
    const own = aVolume({ state: 'planned', createdAt: NOW - 50 })
    expect(planVolume(volumeView(own, null, { hold })).step?.kind).toBe('create-volume')
  })

  it('that is gone is lost, as without a hold', () => {
    expect(planVolume(volumeView(aVolume(), null, { hold })).record.state).toBe('lost')
  })
})

it('what is left of a finished delete is quarantined instead of removed', () => {
  const known = () => ({ row: false, tombstone: true })
  expect(judge(facts(), INSTALLATION, known, hold).kind).toBe('quarantine')
  expect(judge(facts(), INSTALLATION, known, null).kind).toBe('remnant')
})

it('nothing expires', () => {
  expect([mayExpire(true, null), mayExpire(true, hold), mayExpire(false, null)]).toEqual([true, false, false])
})

it('an open create whose instance is there is settled, and its sandbox runs', () => {
  const record = withInstance({}, { engineId: null })
  const d = planSandbox(view(record, facts(), { hold, open: [openRow(createStep)] }))
  expect(d).toMatchObject({
    step: null,
    record: { instance: { engineId: 'engine-id-1' }, status: { phase: 'Running' } },
  })
})
