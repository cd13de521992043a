import type { Call, CreateInstance, CreateMount, Engine } from '../engines/engine.ts'
import { EngineError } from '../model/facts.ts'
import { isExactly, labelsFor, optInLabels } from '../model/labels.ts'
import { SILENT, SILENT_SEEDED } from '../plan/volume.ts'
import type { SandboxRecord, Step, StepKind, VolumeRecord } from '../model/records.ts'

/** What a step needs beyond its own arguments; environment and secrets come from the record, never from the journal. */
export interface StepInput {
  readonly engine: Engine
  readonly installation: string
  readonly endpoint: string
  readonly sandbox: SandboxRecord | null
  readonly volumes: readonly VolumeRecord[]
  readonly progress: (line: string) => void
}

/** What is known of a step that succeeded. */
export interface StepOutcome {
  readonly engineId?: string
  readonly text: string
}

type Executor<K extends StepKind> = (
  step: Extract<Step, { kind: K }>,
  input: StepInput,
  call: Call,
) => Promise<StepOutcome>

/** One executor per kind of step: a kind without one does not compile. */
const EXECUTORS: { readonly [K in StepKind]: Executor<K> } = {
  'pull-image': async (step, { engine, progress }, call) => {
    await engine.pullImage(step.image, progress, call)
    return { text: 'pulled' }
  },
  'create-volume': async (step, input, call) => {
    const row = input.volumes.find((v) => v.uid === step.uid)
    if (row === undefined) throw new EngineError('failed', 'none', `the volume ${step.uid} has no row`)
    const labels = {
      ...labelsFor({
        installation: input.installation,
        uid: step.uid,
        name: step.name,
        kind: 'volume',
        sandbox: row.owner ?? undefined,
      }),
      ...(row.owner !== null && row.retention === 'delete' ? optInLabels(row.owner) : {}),
    }
    await input.engine.createVolume({ name: step.name, labels, sizeBytes: row.sizeBytes }, call)
    return { text: 'created' }
  },
  'remove-volume': async (step, input, call) => {
    const facts = await input.engine.inspectVolume(step.name, call)
    if (facts === null) return { text: 'was gone' }
    const ours = isExactly(facts, { installation: input.installation, name: step.name, uid: step.uid })
    if (!ours && !(await isSilent(step, input, call))) {
      throw new EngineError(
        'conflict',
        'none',
        `the object named ${step.name} does not carry our labels, so it is not removed`,
      )
    }
    await input.engine.removeVolume(step.name, call)
    return { text: 'removed' }
  },
  'create-instance': async (step, input, call) => {
    if (input.sandbox === null) throw new EngineError('failed', 'none', 'the sandbox has no row')
    const { id } = await input.engine.createInstance(createRequest(step, input.sandbox, input), call)
    return { engineId: id, text: 'created' }
  },
  'start-instance': async (step, { engine }, call) => {
    await engine.startInstance(step.engineId, call)
    return { engineId: step.engineId, text: 'started' }
  },
  'stop-instance': async (step, { engine }, call) => {
    await engine.stopInstance(step.engineId, step.graceMs, call)
    return { engineId: step.engineId, text: 'stopped' }
  },
  'pause-instance': async (step, { engine }, call) => {
    await engine.pauseInstance(step.engineId, call)
    return { engineId: step.engineId, text: 'paused' }
  },
  'unpause-instance': async (step, { engine }, call) => {
    await engine.unpauseInstance(step.engineId, call)
    return { engineId: step.engineId, text: 'unpaused' }
  },
  'remove-instance': async (step, input, call) => {
    const facts = await input.engine.inspectInstance(step.engineId, call)
    if (facts === null) return { text: 'was gone' }
    if (
      facts.id !== step.engineId ||
      !isExactly(facts, { installation: input.installation, name: step.name, uid: step.uid })
    ) {
      throw new EngineError(
        'conflict',
        'none',
        `the object with the id ${step.engineId} is not our instance ${step.name}, so it is not removed`,
      )
    }
    await input.engine.removeInstance(step.engineId, call)
    return { text: 'removed' }
  },
}

/** A volume that the engine made silently under our name: unlabelled and, unless a late create filled it, empty; checked again right before it goes. */
async function isSilent(
  step: Extract<Step, { kind: 'remove-volume' }>,
  input: StepInput,
  call: Call,
): Promise<boolean> {
  if (step.why !== SILENT && step.why !== SILENT_SEEDED) return false
  const facts = await input.engine.inspectVolume(step.name, call)
  if (facts === null || Object.keys(facts.labels).length > 0) return false
  return step.why === SILENT_SEEDED || input.engine.volumeIsEmpty(step.name, call)
}

export function executeStep(step: Step, input: StepInput, call: Call): Promise<StepOutcome> {
  const run = EXECUTORS[step.kind] as Executor<StepKind>
  return run(step as never, input, call)
}

function createRequest(
  step: Extract<Step, { kind: 'create-instance' }>,
  record: SandboxRecord,
  input: StepInput,
): CreateInstance {
  const mounts: CreateMount[] = []
  for (const m of [...record.spec.mounts, ...record.imageMounts]) {
    if (m.kind === 'host') {
      mounts.push({
        path: m.path,
        source: { kind: 'host', path: m.hostPath },
        readOnly: m.readOnly,
        seed: false,
      })
      continue
    }
    const row = input.volumes.find((v) => v.uid === m.volume)
    if (row === undefined) throw new EngineError('failed', 'none', `the volume ${m.claim} has no row`)
    mounts.push({
      path: m.path,
      source: { kind: 'volume', name: row.physicalName },
      readOnly: m.readOnly,
      seed: row.seed === 'seeding',
    })
  }
  return {
    name: step.name,
    labels: labelsFor({
      installation: input.installation,
      uid: step.uid,
      name: step.name,
      kind: 'instance',
      sandbox: record.id,
      instance: step.number,
      specHash: step.specHash,
    }),
    image: record.spec.image,
    entrypoint: record.spec.entrypoint,
    env: { ...record.spec.env, HOLDFAST_SANDBOX_ID: record.id, HOLDFAST_ENDPOINT: input.endpoint },
    limits: record.spec.limits,
    mounts,
    workingDir: record.spec.workingDir,
    user: record.spec.user,
    hostname: record.id,
  }
}
