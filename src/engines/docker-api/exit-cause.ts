import type { InstanceFacts } from '../../model/facts.ts'
import type { Call } from '../engine.ts'
import type { Api } from './api.ts'
import { eventTime } from './events.ts'
import { jsonLines } from './lines.ts'
import { engineSeconds } from './time.ts'
import type { EventMessage } from './types.ts'

/** A signal may be handled for a while before the end it causes, milliseconds: a stop's usual grace and some more. */
const BEFORE_END_MS = 15_000
/** The engine notes `stop` after the end, milliseconds. */
const AFTER_END_MS = 5_000
/** Signals that end nothing by default: CHLD, CONT, URG, WINCH. */
const HARMLESS = new Set(['17', '18', '23', '28'])

/** Asks the engine's memory of events, which it loses with each start and which holds only the latest few hundred. */
export async function exitCause(
  api: Api,
  facts: InstanceFacts,
  call: Call,
): Promise<'external' | 'own' | null> {
  const { startedAt, finishedAt } = facts
  if (facts.state !== 'stopped' || startedAt === null || finishedAt === null) return null
  const what = `asking why instance ${facts.name} ended`
  const { body } = await api.stream({
    what,
    method: 'GET',
    path: '/events',
    // From the beginning of the memory, of all objects: what is oldest in it tells how far back it reaches.
    query: {
      since: '1',
      until: engineSeconds(api.clock.now()),
      filters: JSON.stringify({ type: ['container'] }),
    },
    call,
  })
  const events: EventMessage[] = []
  for await (const line of jsonLines(what, body)) events.push(line as EventMessage)
  return causeOf(events, facts.id, startedAt, finishedAt)
}

/** Pure: the cause by what is remembered. */
export function causeOf(
  events: readonly EventMessage[],
  id: string,
  startedAt: number,
  finishedAt: number,
): 'external' | 'own' | null {
  const from = Math.max(startedAt, finishedAt - BEFORE_END_MS)
  const own = events.filter((event) => event.Actor?.ID === id)
  const near = own.filter(
    (event) => eventTime(event) >= from && eventTime(event) <= finishedAt + AFTER_END_MS,
  )
  if (near.some(isSent)) return 'external'
  // Nothing was found. That proves something only when the memory covers the whole time in question.
  const seen = near.some((event) => event.Action === 'die')
  const covered = events.some((event) => eventTime(event) > 0 && eventTime(event) <= from)
  return seen && covered ? 'own' : null
}

function isSent(event: EventMessage): boolean {
  if (event.Action === 'stop' || event.Action === 'restart') return true
  return event.Action === 'kill' && !HARMLESS.has(event.Actor?.Attributes?.['signal'] ?? '')
}
