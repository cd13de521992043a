import type { Entry, Look, Sample, SeenEvent, SeenSandbox } from './soak-history.ts'
import { deathsOf, possible, storiesOf, valuesOf, wanted, wishes, type Story } from './soak-register.ts'

/** A start that was in flight when its server died can land this late, and is then undone, ms. */
const LATE_START_MS = 10_000

/**
 * What the whole history says against the contract, from entry number `since` on. Pure. To be asked when no request
 * is under way, since a request is in the history once it ended.
 */
export function checkHistory(entries: readonly Entry[], since: number = 0): string[] {
  const stories = storiesOf(entries)
  const deaths = deathsOf(entries)
  const recent = entries.slice(since)
  const looks = recent.filter((e): e is Look => e.kind === 'look')
  return [
    ...looks.flatMap((look) => checkLook(look, stories, deaths)),
    ...checkLives(entries.filter((e): e is Look => e.kind === 'look')),
    ...checkEvents(entries.filter((e): e is SeenEvent => e.kind === 'event')),
    ...checkStopped(
      entries.filter((e): e is Sample => e.kind === 'sample'),
      stories,
      deaths,
    ),
  ]
}

/** What one list said, against all that may have held while it was read. */
function checkLook(look: Look, stories: ReadonlyMap<string, Story>, deaths: readonly number[]): string[] {
  const out: string[] = []
  const seen = new Map(look.all.map((s) => [s.id, s]))
  for (const [id, story] of stories) {
    const made = story.ops.find((op) => op.action === 'create' && op.outcome === 'ok')
    if (made === undefined) continue
    const may = wanted(story, deaths, look.begunAt, look.endedAt)
    const mayBeGone = may.mayExpire || may.wishes.has('deleted')
    const s = seen.get(id)
    if (s === undefined) {
      if (made.endedAt <= look.begunAt && !mayBeGone)
        out.push(`${id} was acknowledged and is not listed at ${look.endedAt}`)
      continue
    }
    const fits =
      s.desired === 'deleted'
        ? mayBeGone
        : may.wishes.has(s.desired) || (s.desired === 'stopped' && may.wishes.has('ended'))
    if (!fits)
      out.push(
        `${id} is wanted ${s.desired} (by ${s.reason}) at ${look.endedAt}, and only ${[...may.wishes].join(', ')} may be`,
      )
    out.push(...checkRound(s, story, look, deaths))
  }
  return out
}

function checkRound(s: SeenSandbox, story: Story, look: Look, deaths: readonly number[]): string[] {
  const values = possible(valuesOf(story, ['update'], deaths), look.begunAt, look.endedAt)
  const asked = story.ops.some(
    (op) => op.action === 'update' && op.outcome === 'ok' && op.endedAt <= look.begunAt,
  )
  if (s.round === null ? !asked : values.has(s.round)) return []
  return [`${s.id} has round ${s.round} at ${look.endedAt}, and only ${[...values].join(', ')} may be`]
}

/** Over time: an id is one sandbox for ever, and its numbers only grow. */
function checkLives(looks: readonly Look[]): string[] {
  const out = new Set<string>()
  const last = new Map<string, SeenSandbox>()
  const gone = new Set<string>()
  for (const look of looks) {
    const ids = new Set(look.all.map((s) => s.id))
    if (ids.size !== look.all.length) out.add(`a list names a sandbox twice at ${look.endedAt}`)
    for (const id of last.keys()) if (!ids.has(id)) gone.add(id)
    for (const s of look.all) {
      const was = last.get(s.id)
      last.set(s.id, s)
      if (gone.has(s.id)) out.add(`${s.id} was gone and is back at ${look.endedAt}`)
      if (s.observedGeneration > s.generation)
        out.add(`${s.id} claims generation ${s.observedGeneration} of ${s.generation}`)
      if (was === undefined) continue
      if (was.createdAt !== s.createdAt) out.add(`${s.id} was made at ${was.createdAt} and at ${s.createdAt}`)
      if (was.generation > s.generation)
        out.add(`${s.id} went back from generation ${was.generation} to ${s.generation}`)
      if (was.observedGeneration > s.observedGeneration)
        out.add(`${s.id} observed ${was.observedGeneration} and then ${s.observedGeneration}`)
      if ((was.instance ?? 0) > (s.instance ?? Number.POSITIVE_INFINITY))
        out.add(`${s.id} went back from instance ${was.instance} to ${s.instance}`)
      if (
        was.instance === s.instance &&
        was.engineId !== null &&
        s.engineId !== null &&
        was.engineId !== s.engineId
      )
        out.add(`${s.id}: instance ${s.instance} was ${was.engineId} and is ${s.engineId}`)
      if (was.desired === 'deleted' && s.desired !== 'deleted')
        out.add(`${s.id} was deleted and is wanted ${s.desired}`)
    }
  }
  return [...out]
}

/** Each number once, none left out, and never another event under one. */
function checkEvents(events: readonly SeenEvent[]): string[] {
  const out: string[] = []
  let last: number | null = null
  for (const e of events) {
    if (last !== null && e.seq !== last + 1) out.push(`event ${e.seq} came after ${last}`)
    last = e.seq
  }
  return out
}

/** What its user stopped, and the engine showed stopped, runs only once something else is asked for. */
function checkStopped(
  samples: readonly Sample[],
  stories: ReadonlyMap<string, Story>,
  deaths: readonly number[],
): string[] {
  const out: string[] = []
  const restSince = new Map<string, number>()
  for (const { at, running } of samples) {
    for (const [id, story] of stories) {
      if ((running[id] ?? []).length === 0) {
        if (!restSince.has(id)) restSince.set(id, at)
        continue
      }
      const since = restSince.get(id)
      restSince.delete(id)
      if (since === undefined || at - since < LATE_START_MS) continue
      const may = possible(wishes(story, deaths), since, at)
      if (may.size === 1 && may.has('stopped'))
        out.push(`${id} runs at ${at}, and was stopped since ${since}`)
    }
  }
  return out
}
