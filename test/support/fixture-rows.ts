import type { Clock } from '../../src/model/clock.ts'
import type { Ids } from '../../src/model/ids.ts'
import type { SandboxRecord, Step } from '../../src/model/records.ts'
import type { Store } from '../../src/store/store.ts'
import { createSeededIds } from './ids.ts'
import { mountOf, sandboxRecord, volumeRecord } from '../quick/store-support/fixtures.ts'

/** A row of each kind, with every optional part set in one and absent in another. */

export const FIXTURE_INSTALLATION = 'fixture000000000'
export const HELD_SINCE = 5_000
export const fixtureClock: Clock = { now: () => 4_000, monotonic: () => 4_000, after: () => () => undefined }
export const fixtureIds = (): Ids => ({
  ...createSeededIds('fixture'),
  next: () => FIXTURE_INSTALLATION,
})

const STEP: Step = { kind: 'create-instance', name: 'hf-full-2', uid: 'i2', number: 2, specHash: 'v1-1' }

const full = (): SandboxRecord => {
  const base = sandboxRecord({ id: 'full' })
  return {
    ...base,
    name: 'full-name',
    spec: {
      ...base.spec,
      limits: { cpuMillis: 250, memoryBytes: 1 << 20, pids: 12 },
      mounts: [
        mountOf('v1', '/data'),
        { kind: 'host', name: 'h', hostPath: '/srv', path: '/host', readOnly: true },
      ],
      workingDir: '/w',
      user: '1000',
    },
    restartPolicy: { kind: 'on-failure', max: 3 },
    expiresAt: 9_000,
    metadata: { team: 'a', note: 'b c' },
    imageMounts: [mountOf('v2', '/image')],
    imageId: 'sha256:1',
    instanceSeq: 1,
    instance: {
      number: 1,
      name: 'hf-full-1',
      uid: 'i1',
      engineId: 'e1',
      specHash: 'v1-0',
      generation: 1,
      restartSeq: 0,
      run: { engine: 'r1', boot: 'b1' },
      startedAt: 1_500,
      upSince: 1_600,
    },
    lastExit: { instance: 1, startedAt: 1_200, finishedAt: 1_400, code: 137, class: 'engine', seenAt: 1_450 },
    restarts: 1,
    backoff: { attempts: 2, nextAt: 6_000, error: 'no', code: 'failed', at: 3_000 },
    breaker: { since: 3_000, reason: 'often', probeAt: 8_000 },
  }
}

export async function fillFixture(store: Store): Promise<void> {
  await store.write(true, async (tx) => {
    await tx.setMeta('engine', 'simulated')
    await tx.insertSandbox(full())
    await tx.insertSandbox(sandboxRecord({ id: 'plain' }))
    await tx.insertSandbox(sandboxRecord({ id: 'gone', desired: 'deleted', deletedAt: 3_500 }))
    await tx.insertVolume(
      volumeRecord({
        uid: 'v1',
        owner: 'full',
        retention: 'delete',
        state: 'ready',
        engineCreatedAt: 1_000,
        sizeBytes: 1024,
        notEnforced: ['size'],
        discarded: ['v1-old'],
        make: 2,
      }),
    )
    await tx.insertVolume(
      volumeRecord({
        uid: 'v2',
        kind: 'image',
        seed: 'seeded',
        state: 'removing',
        purge: { by: 'user', at: 2_000 },
      }),
    )
    await tx.insertVolume(volumeRecord({ uid: 'v3', managed: false, state: 'removed', removedAt: 3_000 }))
    const open = {
      key: 'sandbox/full',
      engine: 'simulated',
      step: STEP,
      generation: 1,
      at: 2_000,
      deadlineAt: 9_000,
    }
    await tx.openStep(open)
    const closed = await tx.openStep({ ...open, step: { kind: 'pull-image', image: 'busybox' } })
    await tx.closeStep(closed.id, 'done', 2_500, 'pulled')
    await tx.appendEvent(
      { subject: 'sandbox', id: 'full', type: 'Normal', reason: 'Made', message: 'm' },
      1_000,
    )
    await tx.putTombstone({ uid: 'gone', kind: 'sandbox', name: 'gone', engine: 'simulated', at: 3_500 })
    await tx.putQuarantine({
      engine: 'simulated',
      kind: 'instance',
      name: 'hf-who-1',
      engineId: 'e9',
      firstSeenAt: 1,
      lastSeenAt: 2,
      detail: 'd',
    })
    await tx.putIdempotency({ key: 'k', requestHash: 'h', status: 202, body: '{}', at: 3_000 })
    await tx.putApiKey({ id: 'a', name: 'cli', hash: 'sha256$x$y', createdAt: 1_000 })
  })
}
