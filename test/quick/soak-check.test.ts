import { describe, expect, it } from 'vitest'
import { checkHistory } from '../campaign/soak-check.ts'
import type { Entry, Op, SeenSandbox } from '../campaign/soak-history.ts'

/** A checker that finds nothing is only worth something if it finds what is there. */

const ID = 'one'

function op(action: string, begunAt: number, over: Partial<Op> = {}): Op {
  return {
    kind: 'op',
    client: 'c',
    target: ID,
    action,
    value: null,
    outcome: 'ok',
    status: 202,
    begunAt,
    endedAt: begunAt + 10,
    late: false,
    ...over,
  }
}

const created = op('create', 0)

function look(begunAt: number, ...all: readonly Partial<SeenSandbox>[]): Entry {
  const one: SeenSandbox = {
    id: ID,
    desired: 'running',
    reason: 'user',
    state: 'Running',
    generation: 1,
    observedGeneration: 1,
    instance: 1,
    engineId: 'e1',
    createdAt: 'then',
    expiresAt: null,
    round: null,
  }
  return { kind: 'look', begunAt, endedAt: begunAt + 5, all: all.map((over) => ({ ...one, ...over })) }
}

const event = (seq: number): Entry => ({
  kind: 'event',
  at: seq,
  seq,
  subject: 'sandbox',
  id: ID,
  reason: 'x',
})
const sample = (at: number, runs: boolean): Entry => ({
  kind: 'sample',
  at,
  running: runs ? { [ID]: ['hf-one-1'] } : {},
})

describe('what got a 2xx is seen from then on', () => {
  it('a sandbox is listed once its create was acknowledged', () => {
    expect(checkHistory([look(5), created, look(100, {})])).toEqual([])
    expect(checkHistory([created, look(100)])).toHaveLength(1)
  })

  it('the last acknowledged wish, and while one is under way either', () => {
    const stop = op('stop', 100)
    expect(checkHistory([created, look(102, {}), stop, look(104, { desired: 'stopped' })])).toEqual([])
    expect(checkHistory([created, stop, look(120, {})])).toHaveLength(1)
    expect(checkHistory([created, stop, op('start', 120), look(140, { desired: 'stopped' })])).toHaveLength(1)
  })

  it('a refused wish has no effect, an unknown one may have it until its server is dead', () => {
    const refused = op('stop', 100, { outcome: 'refused', status: 409 })
    expect(checkHistory([created, refused, look(120, { desired: 'stopped' })])).toHaveLength(1)
    const unknown = op('stop', 100, { outcome: 'unknown', status: null, late: true })
    expect(checkHistory([created, unknown, look(120, { desired: 'stopped' })])).toEqual([])
    expect(checkHistory([created, unknown, look(120, {})])).toEqual([])
    const start = op('start', 200)
    const after = look(220, { desired: 'stopped' })
    expect(checkHistory([created, unknown, start, after]), 'it may land after the start').toEqual([])
    const dead: Entry = { kind: 'death', at: 150 }
    expect(checkHistory([created, unknown, dead, start, after]), 'it cannot any more').toHaveLength(1)
  })

  it('a delete is for ever, and nothing goes without one', () => {
    const gone = op('delete', 100)
    expect(checkHistory([created, gone, look(120)])).toEqual([])
    expect(checkHistory([created, gone, look(120, {})])).not.toEqual([])
    expect(checkHistory([created, look(50, { desired: 'deleted' })])).not.toEqual([])
    const back = [
      created,
      gone,
      look(120, { desired: 'deleted' }),
      look(130),
      look(140, { desired: 'deleted' }),
    ]
    expect(checkHistory(back)).toHaveLength(1)
  })

  it('an update, and an expiry that was renewed', () => {
    const update = op('update', 100, { value: '7' })
    expect(checkHistory([created, update, look(120, { round: '7' })])).toEqual([])
    expect(checkHistory([created, update, look(120, { round: null })])).toHaveLength(1)
    expect(checkHistory([created, update, look(120, { round: '8' })])).toHaveLength(1)
    const short = op('create', 0, { value: '1000' })
    const renew = op('renew', 100, { value: '2000' })
    expect(checkHistory([short, look(1_100)])).toEqual([])
    expect(checkHistory([short, renew, look(1_100)]), 'gone before its time').toHaveLength(1)
    expect(checkHistory([short, renew, look(2_100)])).toEqual([])
  })

  it('what the nemesis ended is stopped until it is started again', () => {
    const kill: Entry = { kind: 'fault', what: 'kill instance', target: ID, begunAt: 100, endedAt: 110 }
    expect(checkHistory([created, kill, look(120, { desired: 'stopped' })])).toEqual([])
    expect(checkHistory([created, kill, op('start', 120), look(140, { desired: 'stopped' })])).toHaveLength(1)
    // The pause may come to an instance that has ended.
    expect(checkHistory([created, kill, op('pause', 120), look(140, { desired: 'stopped' })])).toEqual([])
  })
})

describe('over time', () => {
  it('generations, instances and ids only go forward', () => {
    const after = (over: Partial<SeenSandbox>): string[] =>
      checkHistory([
        created,
        look(100, { generation: 2, observedGeneration: 2, instance: 2, engineId: 'e2' }),
        look(200, over),
      ])
    const same = { generation: 2, observedGeneration: 2, instance: 2, engineId: 'e2' }
    expect(after(same)).toEqual([])
    expect(after({ ...same, observedGeneration: 3 })).toHaveLength(1)
    expect(after({ ...same, generation: 1, observedGeneration: 1 })).toHaveLength(2)
    expect(after({ ...same, instance: 1, engineId: 'e1' })).toHaveLength(1)
    expect(after({ ...same, engineId: 'e3' })).toHaveLength(1)
    expect(after({ ...same, createdAt: 'later' })).toHaveLength(1)
  })

  it('events have no gap and no repetition', () => {
    expect(checkHistory([event(4), event(5), event(6)])).toEqual([])
    expect(checkHistory([event(4), event(6)])).toHaveLength(1)
    expect(checkHistory([event(4), event(4)])).toHaveLength(1)
  })

  it('what its user stopped stays stopped', () => {
    const story = [created, op('stop', 100), sample(200, false), sample(30_000, false)]
    expect(checkHistory(story)).toEqual([])
    expect(checkHistory([...story, sample(30_400, true)])).toHaveLength(1)
    expect(checkHistory([...story, op('start', 30_100), sample(30_400, true)])).toEqual([])
    expect(checkHistory([created, op('stop', 100), sample(200, false), sample(600, true)])).toEqual([])
  })
})
