import type { InstanceFacts } from '../../model/facts.ts'
import type { Call } from '../engine.ts'
import { type Api, budget } from './api.ts'
import { eventTime } from './events.ts'
import { jsonLines } from './lines.ts'
import { readBridge } from './run.ts'
import { engineSeconds } from './time.ts'
import type { EventMessage } from './types.ts'

/** A signal may be handled for a while before the end it causes, milliseconds: a stop's usual grace and some more. */
const BEFORE_END_MS = 15_000
/** The engine notes `stop` after the end, milliseconds. */
const AFTER_END_MS = 5_000
/** Signals that end nothing by default: CHLD, CONT, URG, WINCH. */
const HARMLESS = new Set(['17', '18', '23', '28'])

/** How many events the engine remembers. */
const MEMORY_EVENTS = 256

/** Asks the engine's memory of events, which it loses with each start and which holds only the latest few hundred. */
export async function exitCause(
  api: Api,
  facts: InstanceFacts,
  call: Call,
): Promise<'external' | 'own' | null> {
  const { startedAt, finishedAt } = facts
  if (facts.state !== 'stopped' || startedAt === null || finishedAt === null) return null
  const rest = budget(api.clock, call)
  const bridge = await readBridge(api, rest())
  const { body } = await api.stream({
    what: `asking why instance ${facts.name} ended`,
    method: 'GET',
    path: '/events',
    // From the beginning of the memory, of all objects: what is oldest in it tells how far back it reaches.
    query: {
      since: '1',
      until: engineSeconds(api.clock.now()),
      filters: JSON.stringify({ type: ['container'] }),
    },
    call: rest(),
  })
  const events: EventMessage[] = []
  for await (const line of jsonLines('reading events', body)) events.push(line as EventMessage)
  return causeOf(events, { id: facts.id, startedAt, finishedAt }, bridge?.createdAt ?? null)
}

/**
 * The cause by what is remembered. A daemon that finds containers of a killed one alive ends them at its start, before
 * it makes its bridge (at `readyAt`), and remembers that as kills and stops: nobody asked for those.
 */
export function causeOf(
  events: readonly EventMessage[],
  life: { readonly id: string; readonly startedAt: number; readonly finishedAt: number },
  readyAt: number | null,
): 'external' | 'own' | null {
  const { id, startedAt, finishedAt } = life
  const from = Math.max(startedAt, finishedAt - BEFORE_END_MS)
  const near = events.filter((event) => {
    const at = eventTime(event)
    return event.Actor?.ID === id && at >= from && at <= finishedAt + AFTER_END_MS
  })
  const asked = near.filter(isSent)
  if (asked.length > 0) {
    const whole = events.length < MEMORY_EVENTS && !events.some((event) => eventTime(event) <= startedAt)
    const atStart = readyAt === null ? whole : asked.every((event) => eventTime(event) <= readyAt)
    return atStart ? null : 'external'
  }
  // Nothing was found. That proves something only when the memory covers the whole time in question.
  const seen = near.some((event) => event.Action === 'die')
  const covered = events.some((event) => eventTime(event) > 0 && eventTime(event) <= from)
  return seen && covered ? 'own' : null
}

function isSent(event: EventMessage): boolean {
  if (event.Action === 'stop' || event.Action === 'restart') return true
  return event.Action === 'kill' && !HARMLESS.has(event.Actor?.Attributes?.['signal'] ?? '')
}
