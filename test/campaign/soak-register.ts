import type { Death, Entry, Fault, Op } from './soak-history.ts'

/** A value that may hold, with when it can have been set at the latest. */
export interface Setting {
  readonly value: string
  readonly begunAt: number
  /** From then on it cannot be set any more: it is, or it never will be. */
  readonly settledAt: number
  /** It was acknowledged: from `settledAt` on it, or something later, holds. */
  readonly certain: boolean
  /** Whether this one ends what an earlier one set. */
  readonly replaces: (earlier: Setting) => boolean
}

/**
 * The values that a reader between `from` and `to` may be told: all that were set before the reader's end, but those
 * that something certain replaced, begun after they were settled and acknowledged before the reader asked.
 */
export function possible(settings: readonly Setting[], from: number, to: number): Set<string> {
  const begun = settings.filter((s) => s.begunAt <= to)
  const certain = begun.filter((s) => s.certain && s.settledAt <= from)
  return new Set(
    begun
      .filter((s) => !certain.some((c) => c !== s && c.begunAt >= s.settledAt && c.replaces(s)))
      .map((s) => s.value),
  )
}

/** Index of everything about one sandbox, so that a check need not walk through all there is. */
export interface Story {
  readonly ops: readonly Op[]
  readonly faults: readonly Fault[]
}

export function storiesOf(entries: readonly Entry[]): Map<string, Story> {
  const stories = new Map<string, { ops: Op[]; faults: Fault[] }>()
  const of = (id: string): { ops: Op[]; faults: Fault[] } => {
    const have = stories.get(id) ?? { ops: [], faults: [] }
    stories.set(id, have)
    return have
  }
  for (const e of entries) {
    if (e.kind === 'op') of(e.target).ops.push(e)
    else if (e.kind === 'fault' && e.target !== null) of(e.target).faults.push(e)
  }
  return stories
}

export const deathsOf = (entries: readonly Entry[]): number[] =>
  entries.filter((e): e is Death => e.kind === 'death').map((e) => e.at)

/** Until when an operation can take effect: as long as the server that it was sent to lives. */
function settledAt(op: Op, deaths: readonly number[]): number {
  if (!op.late) return op.endedAt
  return deaths.find((at) => at >= op.endedAt) ?? Number.POSITIVE_INFINITY
}

const WISH: Readonly<Record<string, string>> = {
  create: 'running',
  start: 'running',
  resume: 'running',
  restart: 'running',
  recover: 'running',
  stop: 'stopped',
  pause: 'paused',
  delete: 'deleted',
}
/** What the nemesis did to an instance, until a wish of which one of these kinds is made. */
const ENDS_A_FAULT: Readonly<Record<string, readonly string[]>> = {
  ended: ['running', 'stopped', 'deleted'],
  lost: ['running', 'deleted'],
}
const FAULT: Readonly<Record<string, string>> = { 'kill instance': 'ended', 'remove instance': 'lost' }

function settingOf(op: Op, value: string, deaths: readonly number[]): Setting {
  return {
    value,
    begunAt: op.begunAt,
    settledAt: settledAt(op, deaths),
    certain: op.outcome === 'ok',
    replaces: (earlier) => ENDS_A_FAULT[earlier.value]?.includes(value) ?? true,
  }
}

const happened = (op: Op): boolean => op.outcome !== 'refused' || op.late

/** What is wanted of a sandbox, as requests and faults set it: wishes, and `ended` and `lost` by the nemesis. */
export function wishes(story: Story, deaths: readonly number[]): Setting[] {
  const out: Setting[] = []
  for (const op of story.ops) {
    const value = WISH[op.action]
    if (value !== undefined && happened(op)) out.push(settingOf(op, value, deaths))
  }
  for (const f of story.faults) {
    const value = FAULT[f.what]
    if (value === undefined) continue
    const { begunAt, endedAt } = f
    out.push({ value, begunAt, settledAt: endedAt, certain: false, replaces: () => false })
  }
  return out
}

/** What one kind of request sets, as `update` the round of the environment. */
export function valuesOf(story: Story, actions: readonly string[], deaths: readonly number[]): Setting[] {
  return story.ops
    .filter((op) => actions.includes(op.action) && op.value !== null && happened(op))
    .map((op) => settingOf(op, op.value ?? '', deaths))
}

/**
 * What may be wanted of a sandbox by a reader between `from` and `to`. Its time may be up (`expired`) once any expiry
 * that may hold has come, and is surely up once all have.
 */
export function wanted(
  story: Story,
  deaths: readonly number[],
  from: number,
  to: number,
): { readonly wishes: ReadonlySet<string>; readonly mayExpire: boolean; readonly mustExpire: boolean } {
  const expiries = [...possible(valuesOf(story, ['create', 'renew'], deaths), from, to)].map(Number)
  return {
    wishes: possible(wishes(story, deaths), from, to),
    mayExpire: expiries.some((at) => at <= to),
    mustExpire: expiries.length > 0 && expiries.every((at) => at <= from),
  }
}
