import { z } from 'zod'
import { paginationWire, timeText, type PaginationWire } from './common.ts'

export interface StatusWire {
  state: string
  reason: string
  message: string
  lastTransitionAt?: string | undefined
}

const statusWire: z.ZodType<StatusWire> = z.object({
  state: z
    .string()
    .describe(
      'Pending, Starting, Running, Pausing, Paused, Resuming, Stopping, Stopped, Terminated, Failed, Lost, Blocked or Unknown. Tolerate others.',
    ),
  reason: z.string(),
  message: z.string(),
  lastTransitionAt: timeText.optional(),
})

export interface MountWire {
  name: string
  claimName: string | null
  uid: string | null
  mountPath: string
  readOnly: boolean
  kind: 'workspace' | 'claim' | 'image' | 'host'
}

export interface SandboxWire {
  id: string
  name: string | null
  status: StatusWire
  image: { uri: string }
  entrypoint: string[]
  env: Record<string, string>
  resourceLimits: Record<string, string>
  metadata: Record<string, string>
  createdAt: string
  expiresAt: string | null
  restartPolicy: string
  desired: { state: string; reason: string; at: string }
  generation: number
  observedGeneration: number
  engine: string
  instance: { number: number; name: string; engineId: string | null; startedAt: string | null } | null
  lastExit: { code: number | null; class: string; finishedAt: string | null } | null
  restarts: number
  volumes: MountWire[]
  workingDir: string | null
  user: string | null
  stopGraceSeconds: number
  deletedAt: string | null
}

export const sandboxWire: z.ZodType<SandboxWire> = z
  .object({
    id: z.string(),
    name: z.string().nullable(),
    status: statusWire,
    image: z.object({ uri: z.string() }),
    entrypoint: z.array(z.string()).describe("Empty means the image's own."),
    env: z.record(z.string(), z.string()),
    resourceLimits: z.record(z.string(), z.string()),
    metadata: z.record(z.string(), z.string()),
    createdAt: timeText,
    expiresAt: timeText.nullable(),
    restartPolicy: z.string(),
    desired: z.object({ state: z.string(), reason: z.string(), at: timeText }),
    generation: z.number().int(),
    observedGeneration: z.number().int(),
    engine: z.string(),
    instance: z
      .object({
        number: z.number().int(),
        name: z.string(),
        engineId: z.string().nullable(),
        startedAt: timeText.nullable(),
      })
      .nullable(),
    lastExit: z
      .object({ code: z.number().int().nullable(), class: z.string(), finishedAt: timeText.nullable() })
      .nullable(),
    restarts: z.number().int(),
    volumes: z.array(
      z.object({
        name: z.string(),
        claimName: z.string().nullable(),
        uid: z.string().nullable(),
        mountPath: z.string(),
        readOnly: z.boolean(),
        kind: z.enum(['workspace', 'claim', 'image', 'host']),
      }),
    ),
    workingDir: z.string().nullable(),
    user: z.string().nullable(),
    stopGraceSeconds: z.number(),
    deletedAt: timeText.nullable(),
  })
  .meta({ id: 'Sandbox' })

export interface SandboxListWire {
  items: SandboxWire[]
  pagination: PaginationWire
}

export const sandboxListWire: z.ZodType<SandboxListWire> = z.object({
  items: z.array(sandboxWire),
  pagination: paginationWire,
})

export interface CreatedWire {
  id: string
  name: string | null
  status: StatusWire
  metadata?: Record<string, string> | undefined
  expiresAt: string | null
  createdAt: string
  entrypoint: string[]
  volumes: { claimName: string; uid: string; mountPath: string; retention: 'retain' | 'delete' }[]
}

export const createdWire: z.ZodType<CreatedWire> = z
  .object({
    id: z.string(),
    name: z.string().nullable(),
    status: statusWire,
    metadata: z.record(z.string(), z.string()).optional(),
    expiresAt: timeText.nullable(),
    createdAt: timeText,
    entrypoint: z.array(z.string()),
    volumes: z
      .array(
        z.object({
          claimName: z.string(),
          uid: z.string(),
          mountPath: z.string(),
          retention: z.enum(['retain', 'delete']),
        }),
      )
      .describe('What goes with the sandbox (`delete`) and what stays (`retain`).'),
  })
  .meta({ id: 'CreatedSandbox' })
