import { type Clock, sleep } from '../../model/clock.ts'
import { LABEL } from '../../model/labels.ts'
import type { EngineEvent } from '../engine.ts'
import type { Api } from './api.ts'
import { jsonLines } from './lines.ts'
import type { EventMessage } from './types.ts'

/** How long the engine may take to open the stream, milliseconds. */
const OPEN_LIMIT_MS = 15_000
const BACKOFF_FIRST_MS = 200
const BACKOFF_MAX_MS = 10_000
/** A stream that held this long was a good one: the next gap starts again with a short wait, milliseconds. */
const GOOD_STREAM_MS = 10_000

/** Execs are left out: every command in a sandbox is one, and none of them changes what is observed. */
const ACTIONS = [
  'create',
  'start',
  'restart',
  'die',
  'oom',
  'kill',
  'stop',
  'pause',
  'unpause',
  'rename',
  'update',
  'destroy',
]

/** Hints of changes until the signal is aborted. `random` in `[0, 1)` spreads the reconnects of several control planes. */
export async function* engineEvents(
  api: Api,
  random: () => number,
  signal: AbortSignal,
): AsyncGenerator<EngineEvent> {
  let gap = false
  let failures = 0
  while (!signal.aborted) {
    const opened = api.clock.monotonic()
    try {
      for await (const event of oneStream(api, signal, gap)) yield event
    } catch (error) {
      if (signal.aborted) return
      // Whatever broke the stream: the next one says `resync`, and calls of their own tell how the engine is.
      void error
    }
    gap = true
    failures = api.clock.monotonic() - opened > GOOD_STREAM_MS ? 1 : failures + 1
    const wait = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** (failures - 1))
    if (!(await slept(api.clock, wait * (0.5 + random() / 2), signal))) return
  }
}

async function* oneStream(api: Api, signal: AbortSignal, gap: boolean): AsyncGenerator<EngineEvent> {
  const what = 'watching events'
  const { body } = await api.stream({
    what,
    method: 'GET',
    path: '/events',
    query: { filters: JSON.stringify({ type: ['container', 'volume'], event: ACTIONS }) },
    endless: true,
    call: { limitMs: OPEN_LIMIT_MS, signal },
  })
  if (gap) yield { kind: 'resync', at: api.clock.now() }
  for await (const line of jsonLines(what, body)) {
    const event = toEvent(line as EventMessage)
    if (event !== null) yield event
  }
}

/** False when the signal came first. */
function slept(clock: Clock, ms: number, signal: AbortSignal): Promise<boolean> {
  return sleep(clock, ms, signal).then(
    () => true,
    () => false,
  )
}

/** Containers that carry no installation are nobody's of ours: their comings and goings are not worth a look. */
export function toEvent(message: EventMessage): EngineEvent | null {
  const { Type: type, Action: full, Actor: actor } = message
  if (full === undefined || actor?.ID === undefined) return null
  // Some actions carry details behind a colon, as a health check's result.
  const action = full.split(':')[0] ?? full
  const at = eventTime(message)
  if (type === 'volume') return { kind: 'volume', name: actor.ID, action, at }
  const name = actor.Attributes?.['name']
  if (type !== 'container' || name === undefined || actor.Attributes?.[LABEL.installation] === undefined)
    return null
  return { kind: 'instance', name, id: actor.ID, action, at }
}

/** Milliseconds since the epoch; 0 where the engine tells none. */
export function eventTime(message: EventMessage): number {
  if (message.timeNano !== undefined) return Math.floor(message.timeNano / 1e6)
  return (message.time ?? 0) * 1000
}
