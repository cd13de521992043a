import { randomBytes } from 'node:crypto'
import type { Clock } from '../../../src/model/clock.ts'
import { idFromBytes } from '../../../src/model/ids.ts'
import type { Ids } from '../../../src/model/ids.ts'
import type { SandboxRecord, VolumeMount, VolumeRecord } from '../../../src/model/records.ts'

export const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after: (ms, fn) => {
    const timer = setTimeout(fn, ms)
    timer.unref()
    return () => clearTimeout(timer)
  },
}

export const realIds: Ids = {
  next: () => idFromBytes(randomBytes(16)),
  secret: () => randomBytes(32).toString('base64url'),
  random: () => Math.random(),
}

export function mountOf(volume: string, path: string): VolumeMount {
  return { kind: 'volume', name: 'data', volume, claim: 'data', path, readOnly: false }
}

export function sandboxRecord(over: Partial<SandboxRecord> & { id: string }): SandboxRecord {
  return {
    name: null,
    engine: 'simulated',
    createdAt: 1000,
    updatedAt: 1000,
    spec: {
      image: 'busybox',
      entrypoint: ['sleep', '1d'],
      env: { A: 'b' },
      limits: { cpuMillis: 500 },
      mounts: [],
      workingDir: null,
      user: null,
    },
    specHash: 'v1-0',
    generation: 1,
    observedGeneration: 0,
    desired: 'running',
    desiredReason: 'create',
    desiredAt: 1000,
    restartPolicy: { kind: 'no' },
    restartSeq: 0,
    recoverSeq: 0,
    recoveredSeq: 0,
    startAsked: false,
    mayReplaceVolumes: false,
    createDoubtUntil: null,
    stopDoubtUntil: null,
    expiresAt: null,
    stopGraceMs: 10_000,
    metadata: {},
    imageMounts: [],
    imageId: null,
    instanceSeq: 0,
    instance: null,
    lastExit: null,
    restarts: 0,
    backoff: null,
    breaker: null,
    status: { phase: 'Pending', reason: 'Created', message: '', difference: '', next: '', nextAt: null },
    deletedAt: null,
    version: 1,
    ...over,
  }
}

export function volumeRecord(over: Partial<VolumeRecord> & { uid: string }): VolumeRecord {
  return {
    claim: `claim-${over.uid}`,
    engine: 'simulated',
    physicalName: `claim-${over.uid}`,
    make: 1,
    discarded: [],
    kind: 'claim',
    managed: true,
    owner: null,
    retention: 'retain',
    shared: false,
    sizeBytes: null,
    notEnforced: [],
    state: 'planned',
    seed: 'none',
    engineCreatedAt: null,
    purge: null,
    message: '',
    backoff: null,
    createdAt: 1000,
    removedAt: null,
    version: 1,
    ...over,
  }
}
