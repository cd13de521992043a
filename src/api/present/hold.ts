import { holdCause, type Hold } from '../../model/hold.ts'
import type { HoldWire } from '../schemas/operations.ts'
import { iso } from './time.ts'

export function holdBody(hold: Hold | null): HoldWire | null {
  return hold === null ? null : { reason: hold.reason, since: iso(hold.since), cause: holdCause(hold) }
}
