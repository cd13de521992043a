import { z } from 'zod'
import { fail } from '../model/errors.ts'
import type {
  DesiredReason,
  ExitClass,
  Phase,
  SandboxRecord,
  Step,
  VolumeRecord,
  VolumeState,
} from '../model/records.ts'

/**
 * What a stored document must look like to be believed. The schemas are checked against the record types in both
 * directions by the compiler, so a field or word added to a record is a compile error here: whoever adds one decides
 * in a migration what old rows get.
 */

type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? unknown : never) : never

function schemaOf<T>(): <S extends z.ZodType>(schema: S & Same<z.output<S>, T>) => z.ZodType<T> {
  return (schema) => schema as unknown as z.ZodType<T>
}

/** An enum whose list the compiler keeps complete. */
function words<T extends string>(all: Readonly<Record<T, true>>): z.ZodType<T> {
  return z.enum(Object.keys(all) as [T, ...T[]]) as unknown as z.ZodType<T>
}

const text = z.string()
const num = z.number()
const count = z.int().min(0)
const maybeNum = num.nullable()
const maybeText = text.nullable()
const textMap = z.record(text, text).readonly()

const volumeMount = z.object({
  kind: z.literal('volume'),
  name: text,
  volume: text,
  claim: text,
  path: text,
  readOnly: z.boolean(),
})
const hostMount = z.object({
  kind: z.literal('host'),
  name: text,
  hostPath: text,
  path: text,
  readOnly: z.boolean(),
})

const backoff = z.object({ attempts: count, nextAt: num, error: text, code: text, at: num })

const phases = words<Phase>({
  Pending: true,
  Running: true,
  Pausing: true,
  Paused: true,
  Resuming: true,
  Stopping: true,
  Terminated: true,
  Failed: true,
  Stopped: true,
  Starting: true,
  Lost: true,
  Blocked: true,
  Unknown: true,
})

const desiredReasons = words<DesiredReason>({
  user: true,
  create: true,
  update: true,
  expiry: true,
  idle: true,
  apply: true,
  exited: true,
  oom: true,
  external: true,
  'engine-restart': true,
  'create-failed': true,
  rebuilt: true,
})

const exitClasses = words<ExitClass>({
  workload: true,
  oom: true,
  external: true,
  engine: true,
  asked: true,
  provisional: true,
})

const volumeStates = words<VolumeState>({
  planned: true,
  ready: true,
  removing: true,
  removed: true,
  lost: true,
})

const spec = z.object({
  image: text,
  entrypoint: z.array(text).readonly(),
  env: textMap,
  limits: z.object({
    cpuMillis: z.exactOptional(num),
    memoryBytes: z.exactOptional(num),
    pids: z.exactOptional(num),
  }),
  mounts: z.array(z.discriminatedUnion('kind', [hostMount, volumeMount])).readonly(),
  workingDir: maybeText,
  user: maybeText,
})

const instance = z.object({
  number: count,
  name: text,
  uid: text,
  engineId: maybeText,
  specHash: text,
  generation: count,
  restartSeq: count,
  run: z.object({ engine: maybeText, boot: maybeText }).nullable(),
  startedAt: maybeNum,
  upSince: maybeNum,
})

const restartPolicy = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('no') }),
  z.object({ kind: z.literal('on-failure'), max: maybeNum }),
  z.object({ kind: z.literal('always') }),
])

export const sandboxSchema: z.ZodType<SandboxRecord> = schemaOf<SandboxRecord>()(
  z.object({
    id: text.min(1),
    name: maybeText,
    engine: text,
    createdAt: num,
    updatedAt: num,
    spec,
    specHash: text,
    generation: count,
    observedGeneration: count,
    desired: z.enum(['running', 'paused', 'stopped', 'deleted']),
    desiredReason: desiredReasons,
    desiredAt: num,
    restartPolicy,
    restartSeq: count,
    recoverSeq: count,
    recoveredSeq: count,
    startAsked: z.boolean(),
    mayReplaceVolumes: z.boolean(),
    createDoubtUntil: maybeNum,
    stopDoubtUntil: maybeNum,
    expiresAt: maybeNum,
    stopGraceMs: num,
    metadata: textMap,
    imageMounts: z.array(volumeMount).readonly(),
    imageId: maybeText,
    instanceSeq: count,
    instance: instance.nullable(),
    lastExit: z
      .object({
        instance: count,
        startedAt: num,
        finishedAt: maybeNum,
        code: maybeNum,
        class: exitClasses,
        seenAt: num,
      })
      .nullable(),
    restarts: count,
    backoff: backoff.nullable(),
    breaker: z.object({ since: num, reason: text, probeAt: num }).nullable(),
    status: z.object({
      phase: phases,
      reason: text,
      message: text,
      difference: text,
      next: text,
      nextAt: maybeNum,
    }),
    deletedAt: maybeNum,
    version: count,
  }),
)

export const volumeSchema: z.ZodType<VolumeRecord> = schemaOf<VolumeRecord>()(
  z.object({
    uid: text.min(1),
    claim: text,
    engine: text,
    physicalName: text.min(1),
    make: count,
    discarded: z.array(text).readonly(),
    kind: z.enum(['workspace', 'claim', 'image']),
    managed: z.boolean(),
    owner: maybeText,
    retention: z.enum(['retain', 'delete']),
    shared: z.boolean(),
    sizeBytes: maybeNum,
    notEnforced: z.array(text).readonly(),
    state: volumeStates,
    seed: z.enum(['none', 'pending', 'seeding', 'seeded']),
    engineCreatedAt: maybeNum,
    purge: z.object({ by: z.enum(['user', 'owner-deleted']), at: num }).nullable(),
    message: text,
    backoff: backoff.nullable(),
    createdAt: num,
    removedAt: maybeNum,
    version: count,
  }),
)

const byEngineId = { name: text, uid: text, engineId: text }

export const stepSchema: z.ZodType<Step> = schemaOf<Step>()(
  z.discriminatedUnion('kind', [
    z.object({ kind: z.literal('pull-image'), image: text }),
    z.object({ kind: z.literal('create-volume'), uid: text, name: text }),
    z.object({ kind: z.literal('remove-volume'), uid: text, name: text, why: text }),
    z.object({
      kind: z.literal('create-instance'),
      name: text,
      uid: text,
      number: count,
      specHash: text,
    }),
    z.object({ kind: z.literal('start-instance'), ...byEngineId }),
    z.object({ kind: z.literal('stop-instance'), ...byEngineId, graceMs: num, why: text }),
    z.object({ kind: z.literal('pause-instance'), ...byEngineId }),
    z.object({ kind: z.literal('unpause-instance'), ...byEngineId }),
    z.object({ kind: z.literal('remove-instance'), ...byEngineId, why: text }),
  ]),
)

export type Parsed<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: string }

function problem(error: z.ZodError): string {
  const first = error.issues[0]
  if (first === undefined) return 'not valid'
  return `${first.path.join('.') || 'document'}: ${first.message}`
}

/** Reads a stored document. `expect` are fields that have to equal their columns. Never throws. */
export function parseDoc<T>(
  schema: z.ZodType<T>,
  doc: string,
  expect: Readonly<Record<string, string | number>> = {},
): Parsed<T> {
  let raw: unknown
  try {
    raw = JSON.parse(doc)
  } catch (error) {
    return { ok: false, error: `not JSON: ${error instanceof Error ? error.message : String(error)}` }
  }
  const result = schema.safeParse(raw)
  if (!result.success) return { ok: false, error: problem(result.error) }
  for (const [field, value] of Object.entries(expect)) {
    if ((raw as Record<string, unknown>)[field] !== value) {
      return { ok: false, error: `${field} in the document is not the row's ${value}` }
    }
  }
  // The document itself, not the schema's copy: what this version does not know is kept when the row is written again.
  return { ok: true, value: raw as T }
}

/** The document to store. Throws `STORE_FAILED` for one that could not be read back, so that no bug makes a row unreadable. */
export function encodeDoc<T>(schema: z.ZodType<T>, table: string, id: string, value: T): string {
  const doc = JSON.stringify(value)
  const parsed = parseDoc(schema, doc)
  if (!parsed.ok)
    throw fail('STORE_FAILED', { detail: `${table} ${id} would not be readable: ${parsed.error}` })
  return doc
}

/** The error for one row that was asked for by name and cannot be read. */
export function unreadable(table: string, id: string, error: string): Error {
  return fail('ROW_UNREADABLE', { table, id, detail: error })
}
