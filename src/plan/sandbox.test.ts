import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LABEL } from '../model/labels.ts'
import type { Desired, Phase, Step } from '../model/records.ts'
import {
  aRef,
  aSandbox,
  aVolume,
  createStep,
  exited,
  facts,
  NOW,
  openRow,
  OTHER_RUN,
  view,
  volumeFacts,
  withInstance,
} from '../../test/support/plan.ts'
import { restartDelayMs } from './backoff.ts'
import { EXIT_SETTLE_MS } from './exit.ts'
import { planSandbox } from './sandbox.ts'

const removal = new Set(['remove-instance', 'remove-volume', 'stop-instance'])

describe('create', () => {
  it('waits for a volume that is only planned, and kicks it', () => {
    const d = planSandbox(
      view(aSandbox(), null, { volumes: [aVolume({ state: 'planned', seed: 'pending' })] }),
    )
    expect(d.step).toBeNull()
    expect(d.kicks).toEqual(['volume/volume0000000000'])
    expect(d.record.status.phase).toBe('Pending')
  })

  it('names the instance, and marks the seed, in the commit of the intent', () => {
    const d = planSandbox(view(aSandbox(), null, { volumes: [aVolume({ seed: 'pending' })] }))
    expect(d.step).toMatchObject({ kind: 'create-instance', name: 'hf-sandbox000000000-1', number: 1 })
    expect(d.record.instance).toMatchObject({ number: 1, engineId: null })
    expect(d.record.instanceSeq).toBe(1)
    expect(d.changedVolumes).toMatchObject([{ seed: 'seeding' }])
  })

  it('retries an open create under the same name and row', () => {
    const record = aSandbox({
      instance: aRef({ engineId: null, run: null, startedAt: null }),
      instanceSeq: 1,
    })
    const d = planSandbox(view(record, null, { open: [openRow(createStep)] }))
    expect(d.step).toMatchObject({
      kind: 'create-instance',
      name: 'hf-sandbox000000000-1',
      uid: 'instance00000000',
    })
    expect(d.retryOf).toBe(7)
  })

  it('makes a half-seeded volume anew under another name, and removes the first later', () => {
    const record = aSandbox({ instance: aRef({ engineId: null }), instanceSeq: 1 })
    const d = planSandbox(
      view(record, null, { volumes: [aVolume({ seed: 'seeding' })], open: [openRow(createStep)] }),
    )
    expect(d.step).toBeNull()
    expect(d.changedVolumes).toMatchObject([
      {
        // A number that no other copy of this store can have given out.
        physicalName: `workspace-volume0000000000-${NOW / 1000}`,
        make: NOW / 1000,
        seed: 'pending',
        state: 'planned',
        discarded: ['workspace-volume0000000000'],
      },
    ])
  })

  it('does not make an instance on a volume that the engine no longer has', () => {
    const d = planSandbox(view(aSandbox(), null, { volumeSeen: null }))
    expect(d.step).toBeNull()
    expect(d.record.status.phase).toBe('Lost')
  })

  it('gives paths that the image declares a managed volume each, once', () => {
    const image = { id: 'image-2', entrypoint: [], command: [], volumes: ['/data', '/sandbox/x'], user: '' }
    const d = planSandbox(view(aSandbox(), null, { image }))
    expect(d.newVolumes.map((v) => [v.kind, v.retention, v.claim])).toEqual([
      ['image', 'delete', 'image-data'],
    ])
    expect(d.record.imageMounts.map((m) => m.path)).toEqual(['/data'])
    expect(d.record.imageId).toBe('image-2')
  })

  it('pulls a missing image, and is Blocked where it cannot', () => {
    expect(planSandbox(view(aSandbox(), null, { image: null })).step).toEqual({
      kind: 'pull-image',
      image: 'img',
    })
    const d = planSandbox(view(aSandbox(), null, { image: null, canPull: false }))
    expect(d.step).toBeNull()
    expect(d.record.status).toMatchObject({ phase: 'Blocked', reason: 'ImageMissing' })
  })
})

describe('start', () => {
  it('starts an instance whose mounts are the expected volumes', () => {
    const d = planSandbox(view(withInstance(), facts({ state: 'stopped', startedAt: null })))
    expect(d.step).toMatchObject({ kind: 'start-instance', engineId: 'engine-id-1' })
  })

  it('a step that is open for the instance before it is not taken for this one’s', () => {
    const second = { number: 2, uid: 'instance00000002', engineId: 'engine-id-2' }
    const former = (kind: 'start-instance' | 'stop-instance'): Step => ({
      kind,
      name: 'hf-sandbox000000000-1',
      uid: 'instance00000000',
      engineId: 'engine-id-1',
      graceMs: 0,
      why: 'update',
    })
    const own = facts({ id: 'engine-id-2', labels: { ...facts().labels, [LABEL.uid]: second.uid } })
    const open = [openRow(former('start-instance'), { id: 7 }), openRow(former('stop-instance'), { id: 8 })]
    const fresh = { ...own, state: 'stopped', startedAt: null } as const
    const d = planSandbox(view(withInstance({ instanceSeq: 2 }, second), fresh, { open }))
    expect(d.step).toMatchObject({ kind: 'start-instance', engineId: 'engine-id-2' })
    expect(d.retryOf).toBeNull()
    expect(d.settled.map((s) => [s.id, s.state])).toEqual([
      [7, 'abandoned'],
      [8, 'abandoned'],
    ])
    const ended = { ...exited({ exitCode: 0 }), id: 'engine-id-2', labels: own.labels }
    const end = planSandbox(view(withInstance({ instanceSeq: 2 }, second), ended, { open }))
    expect(end.record.lastExit?.class, 'nobody asked for this end').toBe('provisional')
  })

  it.each([
    ['gone', null],
    ['unlabelled: an engine made it silently', volumeFacts({ labels: {} })],
  ])('never starts on a volume that is %s', (_what, seen) => {
    const d = planSandbox(
      view(withInstance(), facts({ state: 'stopped', startedAt: null }), { volumeSeen: seen }),
    )
    expect(d.step?.kind).toBe('remove-instance')
    expect(d.record.status.phase).toBe('Lost')
    const later = planSandbox(view(withInstance(), exited({ run: OTHER_RUN }), { volumeSeen: seen }))
    expect(later.step).toBeNull()
    expect(later.record.status.phase).toBe('Lost')
  })

  it('removes an instance that mounts another volume than journaled', () => {
    const wrong = facts({
      state: 'stopped',
      startedAt: null,
      mounts: [{ path: '/sandbox', volume: 'else', readOnly: false }],
    })
    expect(planSandbox(view(withInstance(), wrong)).step?.kind).toBe('remove-instance')
  })
})

describe('exits are classified by circumstance, never by code', () => {
  it.each([0, 1, 137, 143, 255])('status %i under another engine run: started again', (exitCode) => {
    const d = planSandbox(view(withInstance(), exited({ exitCode, run: OTHER_RUN })))
    expect(d.record.lastExit?.class).toBe('engine')
    expect(d.step?.kind).toBe('start-instance')
    expect(d.record.desired).toBe('running')
  })

  it.each([0, 137, 255])(
    'status %i under the same run is provisional first, then the workload’s own',
    (exitCode) => {
      const first = planSandbox(view(withInstance(), exited({ exitCode })))
      expect(first.record.lastExit?.class).toBe('provisional')
      expect(first.step).toBeNull()
      expect(first.record.desired).toBe('running')
      const later = NOW + EXIT_SETTLE_MS
      expect(planSandbox(view(first.record, exited({ exitCode }), { now: later })).need).toBe('exit-cause')
      const d = planSandbox(view(first.record, exited({ exitCode }), { now: later, exitCause: 'own' }))
      expect(d.record.lastExit?.class).toBe('workload')
      expect(d.record).toMatchObject({ desired: 'stopped', desiredReason: 'exited' })
    },
  )

  it('an exit that turns out to be the engine’s stop is not the workload’s', () => {
    const first = planSandbox(view(withInstance(), exited({ exitCode: 0 })))
    const d = planSandbox(view(first.record, exited({ exitCode: 0, run: OTHER_RUN }), { now: NOW + 60_000 }))
    expect(d.record.lastExit?.class).toBe('engine')
    expect(d.step?.kind).toBe('start-instance')
  })

  it.each([
    ['no', { kind: 'no' } as const, 1, false],
    ['on-failure, status 1', { kind: 'on-failure', max: null } as const, 1, true],
    ['on-failure, status 0', { kind: 'on-failure', max: null } as const, 0, false],
    ['on-failure:1, used up', { kind: 'on-failure', max: 1 } as const, 1, false, 1],
    ['always, status 0', { kind: 'always' } as const, 0, true],
  ])('policy %s', (_name, restartPolicy, exitCode, again, restarts = 0) => {
    const lastExit = {
      instance: 1,
      startedAt: NOW - 500,
      finishedAt: NOW - 10,
      code: exitCode,
      class: 'provisional',
      seenAt: NOW - 5000,
    } as const
    const d = planSandbox(
      view(withInstance({ restartPolicy, restarts, lastExit }), exited({ exitCode }), { exitCause: 'own' }),
    )
    expect(d.record.desired).toBe(again ? 'running' : 'stopped')
    expect(d.step?.kind ?? null).toBe(again ? 'start-instance' : null)
  })

  it('a stop by somebody else and running out of memory have classes of their own', () => {
    const lastExit = {
      instance: 1,
      startedAt: NOW - 500,
      finishedAt: NOW - 10,
      code: 137,
      class: 'provisional',
      seenAt: NOW - 5000,
    } as const
    const other = planSandbox(
      view(withInstance({ lastExit }), exited({ exitCode: 137 }), { exitCause: 'external' }),
    )
    expect(other.record).toMatchObject({ desired: 'stopped', desiredReason: 'external' })
    const oom = planSandbox(
      view(withInstance({ lastExit }), exited({ exitCode: 137, oomKilled: true }), { exitCause: null }),
    )
    expect(oom.record).toMatchObject({ desired: 'stopped', desiredReason: 'oom' })
  })

  it('a start that a user asked for after the end is not undone by that end', () => {
    const d = planSandbox(
      view(withInstance({ desiredReason: 'user', desiredAt: NOW, startAsked: true }), exited()),
    )
    expect(d.step?.kind).toBe('start-instance')
    expect(d.record.desired).toBe('running')
    // The clock stepped back between the end and the wish.
    const back = NOW - 3_600_000
    const stepped = withInstance({ desiredReason: 'user', desiredAt: back, startAsked: true })
    expect(planSandbox(view(stepped, exited(), { now: back })).step?.kind).toBe('start-instance')
  })

  it('a crash loop opens the breaker, and the next try has a time', () => {
    const lastExit = {
      instance: 1,
      startedAt: NOW - 500,
      finishedAt: NOW - 10,
      code: 1,
      class: 'provisional',
      seenAt: NOW - 5000,
    } as const
    const d = planSandbox(
      view(
        withInstance({ lastExit, restarts: 11, restartPolicy: { kind: 'always' } }),
        exited({ exitCode: 1 }),
        { exitCause: 'own' },
      ),
    )
    expect(d.step).toBeNull()
    expect(d.record.status).toMatchObject({ phase: 'Failed', reason: 'CrashLoop' })
    expect(d.wakeAt).toBe(d.record.breaker?.probeAt)
  })

  it('the wait before a restart does not grow when the clock steps back', () => {
    const lastExit = {
      instance: 1,
      startedAt: NOW - 500,
      finishedAt: NOW - 10,
      code: 1,
      class: 'workload',
      seenAt: NOW,
    } as const
    const record = withInstance({ lastExit, restarts: 3, restartPolicy: { kind: 'always' } })
    expect(planSandbox(view(record, exited({ exitCode: 1 }))).wakeAt).toBe(NOW + restartDelayMs(3))
    const back = planSandbox(view(record, exited({ exitCode: 1 }), { now: NOW - 3_600_000 }))
    expect(back.step?.kind).toBe('start-instance')
  })
})

describe('gone, stopped, paused, updated, deleted', () => {
  it('an instance that is gone makes the sandbox Lost, and nothing else happens', () => {
    const d = planSandbox(view(withInstance(), null))
    expect(d.step).toBeNull()
    expect(d.record.status.phase).toBe('Lost')
    expect(d.record.status.message).toContain('workspace')
    expect(d.record.instance?.number).toBe(1)
  })

  it.each([
    ['recover', { recoverSeq: 1 }],
    ['restart policy always', { restartPolicy: { kind: 'always' } as const }],
  ])('%s makes the next instance on the same volumes', (_name, change) => {
    const d = planSandbox(view(withInstance(change), null))
    expect(d.step).toMatchObject({ kind: 'create-instance', name: 'hf-sandbox000000000-2', number: 2 })
    expect(d.tombstones).toMatchObject([{ kind: 'instance', uid: 'instance00000000' }])
  })

  it('an instance that the engine cannot start any more is started again, and replaced only by leave', () => {
    const wedged = (attempts: number) => ({
      backoff: { attempts, nextAt: NOW, error: 'already exists', code: 'wedged', at: NOW - 1 },
      startAsked: true,
      desiredAt: NOW,
    })
    const tried = planSandbox(view(withInstance(wedged(2)), exited()))
    expect(tried.step?.kind).toBe('start-instance')
    const asked = planSandbox(view(withInstance(wedged(0)), exited()))
    expect(asked.step).toMatchObject({ kind: 'remove-instance', engineId: 'engine-id-1', why: 'recover' })
    const runs = planSandbox(view(withInstance(wedged(0)), facts()))
    expect(runs.step).toBeNull()
  })

  it('a foreign object under our name reads as ours being absent, and is not touched', () => {
    const foreign = facts({ labels: {} })
    const d = planSandbox(view(withInstance(), foreign))
    expect(d.step).toBeNull()
    expect(d.record.status.phase).toBe('Lost')
    const deleted = planSandbox(view(withInstance({ desired: 'deleted' }), foreign))
    expect(deleted.step).toBeNull()
    expect(deleted.record.deletedAt).toBe(NOW)
  })

  it('an update ends the old instance before the new one is made', () => {
    const record = withInstance({ specHash: 'v1-new', generation: 2 })
    expect(planSandbox(view(record, facts())).step?.kind).toBe('stop-instance')
    expect(planSandbox(view(record, exited())).step?.kind).toBe('remove-instance')
    const gone = planSandbox(
      view(record, null, {
        open: [
          openRow({
            kind: 'remove-instance',
            name: aRef().name,
            uid: aRef().uid,
            engineId: 'engine-id-1',
            why: 'update',
          }),
        ],
      }),
    )
    expect(gone.step).toMatchObject({ kind: 'create-instance', number: 2 })
  })

  it('an unknown hash version is no drift', () => {
    const d = planSandbox(view(withInstance({ specHash: 'v2-other' }), facts()))
    expect(d.step).toBeNull()
    expect(d.record.status.phase).toBe('Running')
  })

  it('a pause that the engine’s restart ended is Stopped, and says what is lost', () => {
    const d = planSandbox(view(withInstance({ desired: 'paused' }), exited({ run: OTHER_RUN })))
    expect(d.record).toMatchObject({ desired: 'stopped', desiredReason: 'engine-restart' })
    expect(d.events.map((e) => e.reason)).toContain('PauseLost')
    expect(d.step).toBeNull()
  })

  it('a delete waits for a create whose outcome is unknown, and is finished only when nothing can come', () => {
    const record = aSandbox({ desired: 'deleted', instance: aRef({ engineId: null }), instanceSeq: 1 })
    const waiting = planSandbox(view(record, null, { open: [openRow(createStep)] }))
    expect(waiting.record.deletedAt).toBeNull()
    expect(waiting.wakeAt).toBe(NOW + 10_000)
    const done = planSandbox(view(record, null, { open: [openRow(createStep, { deadlineAt: NOW })] }))
    expect(done.record.deletedAt).toBe(NOW)
    expect(done.settled).toMatchObject([{ id: 7, state: 'abandoned' }])
    expect(done.kicks).toEqual(['volume/volume0000000000'])
  })

  it('a delete asks the workload to end first when data outlives it', () => {
    const record = withInstance({ desired: 'deleted' })
    expect(planSandbox(view(record, facts())).step?.kind).toBe('remove-instance')
    expect(
      planSandbox(view(record, facts(), { volumes: [aVolume({ retention: 'retain' })] })).step?.kind,
    ).toBe('stop-instance')
  })
})

describe('properties', () => {
  const desired = fc.constantFrom<Desired>('running', 'paused', 'stopped', 'deleted')
  const phase = fc.constantFrom<Phase>(
    'Pending',
    'Running',
    'Stopped',
    'Lost',
    'Blocked',
    'Failed',
    'Paused',
    'Unknown',
  )
  const anyFacts = fc.constantFrom(
    null,
    facts(),
    facts({ paused: true }),
    exited(),
    exited({ run: OTHER_RUN }),
    facts({ state: 'stopped', startedAt: null }),
    facts({ labels: {} }),
  )
  const ref = fc.constantFrom(null, aRef(), aRef({ engineId: null, run: null, startedAt: null }))
  const record = fc.record({ desired, phase, ref, restartSeq: fc.nat(1), recoverSeq: fc.nat(1) }).map((r) =>
    aSandbox({
      desired: r.desired,
      instance: r.ref,
      instanceSeq: r.ref === null ? 0 : 1,
      restartSeq: r.restartSeq,
      recoverSeq: r.recoverSeq,
      status: { phase: r.phase, reason: '', message: '', difference: '', next: '', nextAt: null },
    }),
  )
  const open = fc.constantFrom([], [openRow(createStep)], [openRow(createStep, { deadlineAt: NOW - 1 })])

  it('an observation that failed leads to no step and changes nothing that is wanted', () => {
    fc.assert(
      fc.property(record, open, (r, o) => {
        const d = planSandbox(
          view(r, null, { open: o, observed: { known: false, error: 'away', since: NOW } }),
        )
        expect(d.step).toBeNull()
        expect(d.record).toMatchObject({ desired: r.desired, instance: r.instance, deletedAt: null })
        expect(d.newVolumes.length + d.changedVolumes.length + d.tombstones.length + d.settled.length).toBe(0)
      }),
    )
  })

  it('a removal or stop names only the instance that carries our labels, by its engine id', () => {
    fc.assert(
      fc.property(record, anyFacts, open, (r, f, o) => {
        const { step } = planSandbox(view(r, f, { open: o }))
        if (step === null || !removal.has(step.kind)) return
        expect(step).toMatchObject({ uid: aRef().uid, engineId: f?.id })
        expect(Object.keys(f?.labels ?? {})).not.toHaveLength(0)
      }),
    )
  })

  it('an instance is let go only when it is confirmed absent', () => {
    fc.assert(
      fc.property(record, anyFacts, open, (r, f, o) => {
        const d = planSandbox(view(r, f, { open: o }))
        const ours = f !== null && Object.keys(f.labels).length > 0
        if (r.instance !== null && ours) expect(d.record.instance?.uid).toBe(r.instance.uid)
      }),
    )
  })

  it('observedGeneration never runs ahead, and the same view gives the same decision', () => {
    fc.assert(
      fc.property(record, anyFacts, open, (r, f, o) => {
        const d = planSandbox(view(r, f, { open: o }))
        expect(d.record.observedGeneration).toBeLessThanOrEqual(d.record.generation)
        expect(planSandbox(view(r, f, { open: o }))).toEqual(d)
      }),
    )
  })

  it('what is as wanted stays still: the decision after it changes nothing', () => {
    fc.assert(
      fc.property(record, anyFacts, (r, f) => {
        const d = planSandbox(view(r, f))
        if (d.step !== null || d.need !== undefined || d.newVolumes.length + d.changedVolumes.length > 0)
          return
        const again = planSandbox(view(d.record, f))
        expect(again.step === null || d.record.lastExit?.class === 'provisional').toBe(true)
        expect(again.events).toEqual([])
      }),
    )
  })
})
