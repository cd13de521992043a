import { z } from 'zod'

export interface PvcBody {
  claimName: string
  createIfNotExists: boolean
  deleteOnSandboxTermination: boolean
  storageClass?: string | null | undefined
  storage?: string | null | undefined
  accessModes?: string[] | null | undefined
}

export interface VolumeBody {
  name: string
  pvc?: PvcBody | null | undefined
  host?: { path: string } | null | undefined
  ossfs?: unknown
  mountPath: string
  readOnly: boolean
  subPath?: string | null | undefined
  shared?: boolean | undefined
}

export interface CreateBody {
  image?: { uri: string; auth?: unknown } | null | undefined
  snapshotId?: string | null | undefined
  entrypoint?: string[] | null | undefined
  resourceLimits?: Record<string, string> | null | undefined
  timeout?: number | null | undefined
  env?: Record<string, string> | null | undefined
  metadata?: Record<string, string> | null | undefined
  volumes?: VolumeBody[] | null | undefined
  extensions?: Record<string, string> | null | undefined
  networkPolicy?: unknown
  credentialProxy?: unknown
  secureAccess?: boolean | null | undefined
  platform?: { os: string; arch: string } | null | undefined
  idleTimeout?: number | null | undefined
  name?: string | null | undefined
  restartPolicy?: string | null | undefined
  workspace?: boolean | null | undefined
  stopGraceSeconds?: number | null | undefined
  workingDir?: string | null | undefined
  user?: string | null | undefined
}

const text = (max: number): z.ZodString => z.string().max(max)
const noNul = (s: string): boolean => !s.includes('\0')

/** Ten years, seconds: a later end is a mistake in the unit. */
const TIMEOUT_MAX_S = 315_360_000
/** An hour, seconds. */
const GRACE_MAX_S = 3_600

const imageUri = text(512)
  .regex(/^[^\s\p{Cc}-][^\s\p{Cc}]*$/u, 'must be an image name without white space')
  .describe('An image on the engine or in a registry; `host` or `dir:/path` on the local engine.')

export const restartPolicyText: z.ZodType<string> = z
  .string()
  .regex(/^(no|always|on-failure(:[1-9]\d{0,5})?)$/, 'must be no, always, on-failure or on-failure:N')

export const entrypointBody: z.ZodType<string[]> = z
  .array(text(131_072).min(1, 'must not be empty').refine(noNul, 'must not contain a NUL character'))
  .max(1_000)
  .describe("Empty: the image's own.")

export const envBody: z.ZodType<Record<string, string>> = z.record(
  z.string(),
  text(131_072).refine(noNul, 'must not contain a NUL character'),
)

export const limitsBody: z.ZodType<Record<string, string>> = z
  .record(z.string(), text(64))
  .describe('cpu ("500m", "1"), memory ("512Mi", "1Gi"), pids ("200").')

export const graceBody: z.ZodType<number> = z.number().int().min(0).max(GRACE_MAX_S)

export const nameBody: z.ZodType<string> = text(63).regex(
  /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/,
  'must be a DNS label: lower-case letters, digits and hyphens, at most 63 characters',
)

export const claimBody: z.ZodType<string> = text(80).regex(
  /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/,
  'must be lower-case letters, digits, hyphens and dots, at most 80 characters',
)

export const quantityBody: z.ZodType<string> = text(32).describe('As "1Gi" or "512Mi".')

const pvcBody: z.ZodType<PvcBody> = z.strictObject({
  claimName: claimBody,
  createIfNotExists: z.boolean().default(true),
  deleteOnSandboxTermination: z
    .boolean()
    .default(false)
    .describe('On every engine: a volume made by this request goes with the sandbox.'),
  storageClass: text(253).nullish(),
  storage: quantityBody.nullish(),
  accessModes: z
    .array(z.enum(['ReadWriteOnce', 'ReadWriteMany', 'ReadOnlyMany', 'ReadWriteOncePod']))
    .max(4)
    .nullish(),
})

const volumeBody: z.ZodType<VolumeBody> = z.strictObject({
  name: nameBody,
  pvc: pvcBody.nullish(),
  host: z.strictObject({ path: text(4_096) }).nullish(),
  ossfs: z.unknown().optional(),
  mountPath: text(4_096),
  readOnly: z.boolean().default(false),
  subPath: text(4_096).nullish(),
  shared: z.boolean().optional().describe('Several sandboxes may mount it read-write at once.'),
})

/** What a create takes. Fields that are not available yet are named here so that they are refused by name, never ignored. */
export const createBody: z.ZodType<CreateBody> = z
  .strictObject({
    image: z.strictObject({ uri: imageUri, auth: z.unknown().optional() }).nullish(),
    snapshotId: z.string().nullish(),
    entrypoint: entrypointBody.nullish().describe("Omitted: the image's own."),
    resourceLimits: limitsBody.nullish(),
    timeout: z
      .number()
      .int()
      .min(60)
      .max(TIMEOUT_MAX_S)
      .nullish()
      .describe('Seconds until the sandbox is removed; omitted or null: never.'),
    env: envBody.nullish(),
    metadata: z.record(z.string(), z.string()).nullish(),
    volumes: z.array(volumeBody).max(64).nullish(),
    extensions: z
      .record(z.string(), z.string())
      .nullish()
      .describe(
        'holdfast.name, holdfast.restartPolicy and holdfast.workspace, for clients of the upstream protocol.',
      ),
    networkPolicy: z.unknown().optional(),
    credentialProxy: z.unknown().optional(),
    secureAccess: z.boolean().nullish(),
    platform: z.strictObject({ os: z.string(), arch: z.string() }).nullish(),
    idleTimeout: z.number().nullish(),
    name: nameBody.nullish(),
    restartPolicy: restartPolicyText.nullish(),
    workspace: z
      .boolean()
      .nullish()
      .describe('A volume at /sandbox that goes with the sandbox; true by default.'),
    stopGraceSeconds: graceBody.nullish().describe('Default 10.'),
    workingDir: text(4_096)
      .regex(/^\/[^\0]*$/, 'must be an absolute path')
      .nullish(),
    user: text(64)
      .regex(/^[A-Za-z0-9_][-A-Za-z0-9_.]*(:[A-Za-z0-9_][-A-Za-z0-9_.]*)?$/, 'must be user or user:group')
      .nullish(),
  })
  .meta({ id: 'CreateSandbox' })

export interface UpdateBody {
  image?: { uri: string } | undefined
  env?: Record<string, string | null> | undefined
  resourceLimits?: Record<string, string | null> | undefined
  entrypoint?: string[] | undefined
  restartPolicy?: string | undefined
  stopGraceSeconds?: number | undefined
  name?: string | null | undefined
}

export const updateBody: z.ZodType<UpdateBody> = z
  .strictObject({
    image: z.strictObject({ uri: imageUri }).optional(),
    env: z
      .record(z.string(), text(131_072).refine(noNul, 'must not contain a NUL character').nullable())
      .optional()
      .describe('Merged; null removes a name.'),
    resourceLimits: z
      .record(z.string(), text(64).nullable())
      .optional()
      .describe('Merged; null removes a limit.'),
    entrypoint: entrypointBody.optional(),
    restartPolicy: restartPolicyText.optional(),
    stopGraceSeconds: graceBody.optional(),
    name: nameBody.nullable().optional(),
  })
  .meta({ id: 'UpdateSandbox' })

export interface VolumeCreateBody {
  claimName: string
  shared: boolean
  storage?: string | null | undefined
  retention: 'retain' | 'delete'
}

export const volumeCreateBody: z.ZodType<VolumeCreateBody> = z.strictObject({
  claimName: claimBody,
  shared: z.boolean().default(false),
  storage: quantityBody.nullish(),
  retention: z
    .enum(['retain', 'delete'])
    .default('retain')
    .describe('A volume made ahead of use has no owning sandbox, so only an explicit removal ends it.'),
})
