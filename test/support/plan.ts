import type { EngineRun, InstanceFacts, VolumeFacts } from '../../src/model/facts.ts'
import { instanceName } from '../../src/model/ids.ts'
import { labelsFor } from '../../src/model/labels.ts'
import type {
  InstanceRef,
  JournalRow,
  SandboxRecord,
  SandboxSpec,
  Step,
  VolumeRecord,
} from '../../src/model/records.ts'
import { specHash } from '../../src/model/spec.ts'
import type { SandboxView, VolumeView } from '../../src/plan/types.ts'

/** Records and facts for the planner's tests: one sandbox with a workspace, in the state that a test then changes. */

export const NOW = 1_800_000_000_000
export const INSTALLATION = 'inst00000000000a'
export const RUN: EngineRun = { engine: 'run-1', boot: 'boot-1' }
export const OTHER_RUN: EngineRun = { engine: 'run-2', boot: 'boot-1' }
const ID = 'sandbox000000000'
const VOLUME = 'volume0000000000'

export const spec: SandboxSpec = {
  image: 'img',
  entrypoint: ['run'],
  env: {},
  limits: {},
  mounts: [
    {
      kind: 'volume',
      name: 'workspace',
      volume: VOLUME,
      claim: 'workspace',
      path: '/sandbox',
      readOnly: false,
    },
  ],
  workingDir: null,
  user: null,
}

export function aSandbox(change: Partial<SandboxRecord> = {}): SandboxRecord {
  return {
    id: ID,
    name: null,
    engine: 'sim',
    createdAt: NOW - 1000,
    updatedAt: NOW - 1000,
    spec,
    specHash: specHash(spec),
    generation: 1,
    observedGeneration: 0,
    desired: 'running',
    desiredReason: 'create',
    desiredAt: NOW - 1000,
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
    imageId: 'image-1',
    instanceSeq: 0,
    instance: null,
    lastExit: null,
    restarts: 0,
    backoff: null,
    breaker: null,
    status: { phase: 'Pending', reason: '', message: '', difference: '', next: '', nextAt: null },
    deletedAt: null,
    version: 1,
    ...change,
  }
}

export function aRef(change: Partial<InstanceRef> = {}): InstanceRef {
  return {
    number: 1,
    name: instanceName(ID, 1),
    uid: 'instance00000000',
    engineId: 'engine-id-1',
    specHash: specHash(spec),
    generation: 1,
    restartSeq: 0,
    run: RUN,
    startedAt: NOW - 500,
    upSince: null,
    ...change,
  }
}

/** A sandbox that has an instance. */
export function withInstance(
  change: Partial<SandboxRecord> = {},
  ref: Partial<InstanceRef> = {},
): SandboxRecord {
  return aSandbox({ instance: aRef(ref), instanceSeq: 1, observedGeneration: 1, ...change })
}

export function facts(change: Partial<InstanceFacts> = {}): InstanceFacts {
  const ref = aRef()
  return {
    id: 'engine-id-1',
    name: ref.name,
    labels: labelsFor({
      installation: INSTALLATION,
      uid: ref.uid,
      name: ref.name,
      kind: 'instance',
      sandbox: ID,
      instance: 1,
      specHash: specHash(spec),
    }),
    state: 'running',
    paused: false,
    createdAt: NOW - 600,
    startedAt: NOW - 500,
    finishedAt: null,
    exitCode: null,
    oomKilled: false,
    mounts: [{ path: '/sandbox', volume: `workspace-${VOLUME}`, readOnly: false }],
    run: RUN,
    ...change,
  }
}

export function exited(change: Partial<InstanceFacts> = {}): InstanceFacts {
  return facts({ state: 'stopped', finishedAt: NOW - 10, exitCode: 0, ...change })
}

export function aVolume(change: Partial<VolumeRecord> = {}): VolumeRecord {
  return {
    uid: VOLUME,
    claim: 'workspace',
    engine: 'sim',
    physicalName: `workspace-${VOLUME}`,
    make: 1,
    discarded: [],
    kind: 'workspace',
    managed: true,
    owner: ID,
    retention: 'delete',
    shared: false,
    sizeBytes: null,
    notEnforced: [],
    state: 'ready',
    seed: 'seeded',
    engineCreatedAt: NOW - 900,
    purge: null,
    message: '',
    backoff: null,
    createdAt: NOW - 1000,
    removedAt: null,
    version: 1,
    ...change,
  }
}

export function volumeFacts(change: Partial<VolumeFacts> = {}): VolumeFacts {
  const name = change.name ?? `workspace-${VOLUME}`
  return {
    name,
    labels: labelsFor({ installation: INSTALLATION, uid: VOLUME, name, kind: 'volume', sandbox: ID }),
    createdAt: NOW - 900,
    ...change,
  }
}

export function openRow(step: Step, change: Partial<JournalRow> = {}): JournalRow {
  return {
    id: 7,
    key: `sandbox/${ID}`,
    engine: 'sim',
    step,
    generation: 1,
    epoch: 1,
    state: 'open',
    attempts: 1,
    createdAt: NOW - 100,
    deadlineAt: NOW + 10_000,
    closedAt: null,
    outcome: null,
    ...change,
  }
}

export const createStep: Step = {
  kind: 'create-instance',
  name: instanceName(ID, 1),
  uid: 'instance00000000',
  number: 1,
  specHash: specHash(spec),
}

/** A view whose engine shows the given instance, and the volume unless told otherwise. */
export function view(
  record: SandboxRecord,
  instance: InstanceFacts | null,
  change: Partial<SandboxView> & { volumeSeen?: VolumeFacts | null } = {},
): SandboxView {
  const { volumeSeen = volumeFacts(), ...rest } = change
  let n = 0
  return {
    installation: INSTALLATION,
    record,
    volumes: [aVolume()],
    open: [],
    observed: {
      known: true,
      value: { instance, volumes: new Map([[`workspace-${VOLUME}`, volumeSeen]]) },
      at: NOW,
    },
    image: { id: 'image-1', entrypoint: [], command: [], volumes: [], user: '' },
    exitCause: undefined,
    canPull: true,
    hold: null,
    strangers: [],
    now: NOW,
    fresh: () => `fresh${String(++n).padStart(11, '0')}`,
    ...rest,
  }
}

export function volumeView(
  record: VolumeRecord,
  seen: VolumeFacts | null,
  change: Partial<VolumeView> = {},
): VolumeView {
  return {
    installation: INSTALLATION,
    record,
    owner: aSandbox(),
    ownerBuried: false,
    ownerOpen: [],
    holders: [],
    open: [],
    observed: { known: true, value: new Map([[record.physicalName, seen]]), at: NOW },
    empty: undefined,
    hold: null,
    now: NOW,
    ...change,
  }
}
