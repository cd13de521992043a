import { z } from 'zod'

/** RFC 3339 with an offset, as a schema for both directions. */
export const timeText: z.ZodType<string> = z.iso.datetime({ offset: true })

export interface ErrorWire {
  code: string
  message: string
  suggestion?: string | undefined
  details?: unknown
}

export const errorWire: z.ZodType<ErrorWire> = z
  .object({
    code: z.string(),
    message: z.string(),
    suggestion: z.string().optional(),
    details: z.unknown().optional(),
  })
  .meta({ id: 'Error', description: 'What happened, what it means for the data, and the next command.' })

export interface PaginationWire {
  page: number
  pageSize: number
  totalItems: number
  totalPages: number
  hasNextPage: boolean
}

export const paginationWire: z.ZodType<PaginationWire> = z
  .object({
    page: z.number().int(),
    pageSize: z.number().int(),
    totalItems: z.number().int(),
    totalPages: z.number().int(),
    hasNextPage: z.boolean(),
  })
  .meta({ id: 'Pagination' })

export interface PageQuery {
  page: number
  pageSize: number
}

export const pageShape: { page: z.ZodType<number>; pageSize: z.ZodType<number> } = {
  page: z.coerce.number().int().min(1).max(1_000_000).default(1),
  pageSize: z.coerce.number().int().min(1).max(200).default(20),
}

export function pagination(q: PageQuery, total: number): PaginationWire {
  const totalPages = Math.ceil(total / q.pageSize)
  return {
    page: q.page,
    pageSize: q.pageSize,
    totalItems: total,
    totalPages,
    hasNextPage: q.page < totalPages,
  }
}

export const pageOf = (q: PageQuery): { offset: number; limit: number } => ({
  offset: (q.page - 1) * q.pageSize,
  limit: q.pageSize,
})

/** `true`, `1` and an empty value mean yes in a query. */
export const flag: z.ZodType<boolean> = z
  .enum(['true', 'false', '1', '0', ''])
  .default('false')
  .transform((v) => v === 'true' || v === '1' || v === '')

export interface IdParams {
  id: string
}

export const idParams: z.ZodType<IdParams> = z.object({ id: z.string().min(1).max(128) })

export interface PortParams extends IdParams {
  port: number
}

export const portParams: z.ZodType<PortParams> = z.object({
  id: z.string().min(1).max(128),
  port: z.coerce.number().int().min(1).max(65_535),
})

/** An answer without a body. */
export const empty: z.ZodType<undefined> = z.undefined().describe('No body.')

/** Answers that any keyed route can give. */
export const errorResponses: Record<'4xx' | '5xx', z.ZodType<ErrorWire>> = {
  '4xx': errorWire,
  '5xx': errorWire,
}

interface IntentHeaders {
  'idempotency-key'?: string | undefined
}

/** For the document; the header is read, with the caller and the body, where the intent is committed. */
export const intentHeaders: z.ZodType<IntentHeaders> = z.looseObject({
  'idempotency-key': z
    .string()
    .optional()
    .describe('The same key, caller and request give the first answer again, for 24 hours.'),
})
