import { z } from 'zod'

export interface ExecBody {
  command: string[] | string
  workingDir?: string | undefined
  env?: Record<string, string> | undefined
  user?: string | undefined
  timeoutSeconds?: number | null | undefined
}

const noNul = (s: string): boolean => !s.includes('\0')
const word = z.string().max(1_048_576).refine(noNul, 'must not contain a NUL character')

/** A day, seconds: a longer command belongs in the background. */
const TIMEOUT_MAX_S = 86_400

const command = z
  .union([z.array(word).min(1).max(10_000), word.min(1)])
  .describe('An argument list, or a script for `sh -c`.')

const shape = {
  command,
  workingDir: z
    .string()
    .max(4_096)
    .regex(/^\/[^\0]*$/, 'must be an absolute path')
    .optional(),
  env: z.record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), word).optional(),
  user: z
    .string()
    .max(64)
    .regex(/^[A-Za-z0-9_][-A-Za-z0-9_.]*(:[A-Za-z0-9_][-A-Za-z0-9_.]*)?$/)
    .optional(),
  timeoutSeconds: z.number().positive().max(TIMEOUT_MAX_S).nullish(),
}

export interface ExecOnceBody extends ExecBody {
  stdin?: string | undefined
}

export const execOnceBody: z.ZodType<ExecOnceBody> = z.strictObject({
  ...shape,
  stdin: z.string().optional(),
})

export interface ExecResultWire {
  exitCode: number | null
  stdout: string
  stderr: string
  stdoutEncoding?: 'base64' | undefined
  stderrEncoding?: 'base64' | undefined
  truncated: boolean
  timedOut: boolean
  lost: string | null
}

export const execResultWire: z.ZodType<ExecResultWire> = z.object({
  exitCode: z
    .number()
    .int()
    .nullable()
    .describe('128+n for a signal; null when it is not known, see `lost`.'),
  stdout: z.string(),
  stderr: z.string(),
  stdoutEncoding: z.literal('base64').optional().describe('Only when the bytes are not valid UTF-8.'),
  stderrEncoding: z.literal('base64').optional(),
  truncated: z
    .boolean()
    .describe('More than 1 MiB came on one of the outputs; the rest was read and dropped.'),
  timedOut: z.boolean(),
  lost: z.string().nullable(),
})

export interface ExecStart extends ExecBody {
  type: 'start'
  stdin: boolean
  tty?: { columns: number; rows: number } | undefined
}

const size = { columns: z.number().int().min(1).max(10_000), rows: z.number().int().min(1).max(10_000) }

export const execStart: z.ZodType<ExecStart> = z.strictObject({
  type: z.literal('start'),
  ...shape,
  stdin: z.boolean().default(false),
  tty: z.strictObject(size).optional(),
})

export type ExecControl =
  | { type: 'eof' }
  | { type: 'resize'; columns: number; rows: number }
  | { type: 'signal'; signal: 'INT' | 'TERM' | 'KILL' | 'HUP' | 'QUIT' | 'USR1' | 'USR2' }

export const execControl: z.ZodType<ExecControl> = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('eof') }),
  z.strictObject({ type: z.literal('resize'), ...size }),
  z.strictObject({
    type: z.literal('signal'),
    signal: z.enum(['INT', 'TERM', 'KILL', 'HUP', 'QUIT', 'USR1', 'USR2']),
  }),
])

export interface StatsWire {
  at: string
  cpuMs: number
  memoryBytes: number
  memoryLimitBytes: number | null
  pids: number
}

export const statsWire: z.ZodType<StatsWire> = z.object({
  at: z.string(),
  cpuMs: z.number().describe('Total CPU time used.'),
  memoryBytes: z.number(),
  memoryLimitBytes: z.number().nullable(),
  pids: z.number().int(),
})
