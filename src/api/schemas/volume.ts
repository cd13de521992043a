import { z } from 'zod'
import { paginationWire, timeText, type PaginationWire } from './common.ts'

export interface VolumeWire {
  uid: string
  claimName: string
  kind: 'workspace' | 'claim' | 'image'
  physicalName: string
  state: string
  retention: 'retain' | 'delete'
  shared: boolean
  managed: boolean
  owner: string | null
  mountedBy: string[]
  sizeBytes: number | null
  notEnforced: string[]
  seed: string
  message: string
  createdAt: string
  removedAt: string | null
}

export const volumeWire: z.ZodType<VolumeWire> = z
  .object({
    uid: z.string(),
    claimName: z.string(),
    kind: z.enum(['workspace', 'claim', 'image']),
    physicalName: z.string(),
    state: z.string(),
    retention: z.enum(['retain', 'delete']),
    shared: z.boolean(),
    managed: z.boolean().describe("False: somebody else's; used, never labelled or removed."),
    owner: z.string().nullable(),
    mountedBy: z.array(z.string()),
    sizeBytes: z.number().int().nullable(),
    notEnforced: z.array(z.string()),
    seed: z.string(),
    message: z.string(),
    createdAt: timeText,
    removedAt: timeText.nullable(),
  })
  .meta({ id: 'Volume' })

export interface VolumeListWire {
  items: VolumeWire[]
  pagination: PaginationWire
}

export const volumeListWire: z.ZodType<VolumeListWire> = z.object({
  items: z.array(volumeWire),
  pagination: paginationWire,
})

export interface PurgeWire {
  uid: string
  state: string
}

export const purgeWire: z.ZodType<PurgeWire> = z.object({ uid: z.string(), state: z.string() })
