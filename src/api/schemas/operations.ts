import { z } from 'zod'
import { timeText } from './common.ts'

export interface EventWire {
  seq: number
  at: string
  subject: string
  id: string
  type: string
  reason: string
  message: string
}

export const eventWire: z.ZodType<EventWire> = z
  .object({
    seq: z.number().int(),
    at: timeText,
    subject: z.string(),
    id: z.string(),
    type: z.string(),
    reason: z.string(),
    message: z.string(),
  })
  .meta({ id: 'Event' })

export interface HoldWire {
  reason: 'restored' | 'rebuilt' | 'unreadable'
  since: string
  cause: string
}

export const holdWire: z.ZodType<HoldWire> = z
  .object({
    reason: z.enum(['restored', 'rebuilt', 'unreadable']),
    since: timeText,
    cause: z.string().describe('For people, as the end of a sentence.'),
  })
  .meta({ id: 'Hold' })

export interface RecoveryWire {
  hold: HoldWire | null
  waiting: { id: string; name: string | null; what: string; message: string }[]
  quarantine: { engine: string; kind: string; name: string; engineId: string; firstSeenAt: string }[]
  unreadable: { table: string; id: string; error: string }[]
}

export const recoveryWire: z.ZodType<RecoveryWire> = z
  .object({
    hold: holdWire
      .nullable()
      .describe('While it lasts nothing is removed, nothing expires, and older wishes are not acted upon.'),
    waiting: z
      .array(z.object({ id: z.string(), name: z.string().nullable(), what: z.string(), message: z.string() }))
      .describe('What happens to sandboxes once the hold ends, as far as it differs from what is.'),
    quarantine: z
      .array(
        z.object({
          engine: z.string(),
          kind: z.string(),
          name: z.string(),
          engineId: z.string(),
          firstSeenAt: timeText,
        }),
      )
      .describe('Objects with our labels that no row knows: never removed without a person.'),
    unreadable: z
      .array(z.object({ table: z.string(), id: z.string(), error: z.string() }))
      .describe('Rows that are damaged. Each hides only itself; what it stands for is left alone.'),
  })
  .meta({ id: 'Recovery' })

export const confirmedWire: z.ZodType<{ lifted: HoldWire | null }> = z.object({
  lifted: holdWire.nullable().describe('What it was; null when nothing held.'),
})

export interface ExplainWire {
  id: string
  wanted: { state: string; reason: string; at: string; generation: number }
  observed: {
    known: boolean
    at?: string | undefined
    error?: string | undefined
    since?: string | undefined
    instance?:
      | {
          state: 'running' | 'stopped'
          paused: boolean
          name: string
          engineId: string
          startedAt: string | null
          exitCode: number | null
        }
      | null
      | undefined
  }
  difference: string
  next: string
  nextAt: string | null
  lastError: { message: string; code: string; at: string; attempts: number } | null
  breaker: { since: string; reason: string; probeAt: string } | null
  openSteps: { kind: string; since: string; attempts: number; deadline: string }[]
  survives: { claimName: string; uid: string; state: string }[]
  engine: { id: string; ok: boolean; error: string | null }
  lastExit: { code: number | null; class: string; finishedAt: string | null } | null
  held: string | null
  suggestions: string[]
}

export const explainWire: z.ZodType<ExplainWire> = z
  .object({
    id: z.string(),
    wanted: z.object({ state: z.string(), reason: z.string(), at: timeText, generation: z.number().int() }),
    observed: z.object({
      known: z
        .boolean()
        .describe('False: the engine could not be asked. Nothing is removed while that is so.'),
      at: timeText.optional(),
      error: z.string().optional(),
      since: timeText.optional(),
      instance: z
        .object({
          state: z.enum(['running', 'stopped']),
          paused: z.boolean(),
          name: z.string(),
          engineId: z.string(),
          startedAt: timeText.nullable(),
          exitCode: z.number().int().nullable(),
        })
        .nullish()
        .describe('Null: confirmed absent.'),
    }),
    difference: z.string(),
    next: z.string(),
    nextAt: timeText.nullable(),
    lastError: z
      .object({ message: z.string(), code: z.string(), at: timeText, attempts: z.number().int() })
      .nullable(),
    breaker: z.object({ since: timeText, reason: z.string(), probeAt: timeText }).nullable(),
    openSteps: z.array(
      z.object({ kind: z.string(), since: timeText, attempts: z.number().int(), deadline: timeText }),
    ),
    survives: z.array(z.object({ claimName: z.string(), uid: z.string(), state: z.string() })),
    engine: z.object({ id: z.string(), ok: z.boolean(), error: z.string().nullable() }),
    lastExit: z
      .object({ code: z.number().int().nullable(), class: z.string(), finishedAt: timeText.nullable() })
      .nullable(),
    held: z
      .string()
      .nullable()
      .describe('Why nothing is removed and older wishes wait; null when nothing holds.'),
    suggestions: z.array(z.string()).describe('Commands.'),
  })
  .meta({ id: 'Explanation' })

export type FindingKind =
  | 'missing-instance'
  | 'orphan-instance'
  | 'missing-volume'
  | 'orphan-volume'
  | 'quarantined'
  | 'copied-labels'
  | 'open-step'
  | 'corrupt-row'

export interface AuditWire {
  engine: string
  checkedAt: string
  ok: boolean
  counts: { rows: number; instances: number; volumes: number; openSteps: number; mounts?: number | undefined }
  /** Why nothing is removed at present. */
  held: string | null
  findings: { kind: FindingKind; name: string; detail: string }[]
}

export const auditWire: z.ZodType<AuditWire> = z
  .object({
    engine: z.string(),
    checkedAt: timeText,
    ok: z.boolean().describe('True when nothing was found but copied labels, which are nobody’s fault.'),
    counts: z.object({
      rows: z.number().int(),
      instances: z.number().int(),
      volumes: z.number().int(),
      openSteps: z.number().int(),
      mounts: z.number().int().optional(),
    }),
    held: z.string().nullable().describe('Why nothing is removed at present; null when nothing holds.'),
    findings: z.array(
      z.object({
        kind: z.enum([
          'missing-instance',
          'orphan-instance',
          'missing-volume',
          'orphan-volume',
          'quarantined',
          'copied-labels',
          'open-step',
          'corrupt-row',
        ]),
        name: z.string(),
        detail: z.string(),
      }),
    ),
  })
  .meta({ id: 'Audit' })

export interface EngineWire {
  id: string
  driver: string
  ok: boolean
  error: string | null
  since: string
  info?:
    | { version: string; apiVersion: string; endpoint: string; details: Record<string, string> }
    | undefined
  capabilities: Record<string, boolean | string[]>
}

export const engineWire: z.ZodType<EngineWire> = z
  .object({
    id: z.string(),
    driver: z.string(),
    ok: z.boolean(),
    error: z.string().nullable(),
    since: timeText,
    info: z
      .object({
        version: z.string(),
        apiVersion: z.string(),
        endpoint: z.string(),
        details: z.record(z.string(), z.string()),
      })
      .optional(),
    capabilities: z.record(z.string(), z.union([z.boolean(), z.array(z.string())])),
  })
  .meta({ id: 'Engine' })
