import { setTimeout as delay } from 'node:timers/promises'
import type { Event, Sandbox } from '@holdfast/client'
import type { TestServer } from '../support/server.ts'
import type { SeenSandbox, SoakHistory } from './soak-history.ts'

/** Between two looks, ms. */
const LOOK_EVERY_MS = 900
/** One look, ms: the server may be dead, stopped, or starting. */
const LOOK_LIMIT_MS = 5_000
/** The largest page there is: one page is one consistent read. */
const PAGE = 200
const EVENTS = 1_000

function seen(s: Sandbox): SeenSandbox {
  return {
    id: s.id,
    desired: s.desired.state,
    reason: s.desired.reason,
    state: s.status.state,
    generation: s.generation,
    observedGeneration: s.observedGeneration,
    instance: s.instance?.number ?? null,
    engineId: s.instance?.engineId ?? null,
    createdAt: s.createdAt,
    expiresAt: s.expiresAt,
    round: s.env['ROUND'] ?? null,
  }
}

export interface Observer {
  readonly looks: number
  readonly events: number
  stop(): Promise<void>
}

/** Reads the list and the events all the time, as any client may, and notes what it was told. */
export function startObserver(server: TestServer, history: SoakHistory): Observer {
  let stopped = false
  let looks = 0
  let events = 0
  let seq: number | null = null

  async function look(): Promise<void> {
    const begunAt = Date.now()
    const { status, body } = await server.call<{ items: Sandbox[]; pagination: { totalItems: number } }>(
      'GET',
      `/sandboxes?pageSize=${PAGE}`,
      { limitMs: LOOK_LIMIT_MS },
    )
    if (status !== 200) return refused('the list', status, body)
    if (body.pagination.totalItems > PAGE)
      return history.violated(`${body.pagination.totalItems} sandboxes are more than a page holds`)
    looks++
    history.add({ kind: 'look', begunAt, endedAt: Date.now(), all: body.items.map(seen) })
  }

  async function follow(): Promise<void> {
    const path = seq === null ? '/events?limit=1' : `/events?after=${seq}&limit=${EVENTS}`
    const { status, body } = await server.call<{ items: Event[] }>('GET', path, { limitMs: LOOK_LIMIT_MS })
    if (status !== 200) return refused('the events', status, body)
    for (const e of body.items) {
      events++
      seq = e.seq
      history.add({
        kind: 'event',
        at: Date.parse(e.at),
        seq: e.seq,
        subject: e.subject,
        id: e.id,
        reason: e.reason,
      })
    }
  }

  function refused(what: string, status: number, body: unknown): void {
    if (status !== 503) history.violated(`${what} answered ${status}: ${JSON.stringify(body)}`)
  }

  const run = async (): Promise<void> => {
    while (!stopped) {
      for (const one of [look, follow]) {
        try {
          await one()
        } catch {
          // The server was killed, or does not answer now: nothing was seen.
          history.count('looks without an answer')
        }
      }
      await delay(LOOK_EVERY_MS)
    }
  }
  const running = run()
  return {
    get looks() {
      return looks
    },
    get events() {
      return events
    },
    async stop() {
      stopped = true
      await running
    },
  }
}
