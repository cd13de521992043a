import { expect, it } from 'vitest'
import { createVirtualClock } from '../../test/support/virtual-clock.ts'
import { createQueue, type Slot } from './queue.ts'

function rig(limit = 2): {
  readonly queue: ReturnType<typeof createQueue>
  readonly clock: ReturnType<typeof createVirtualClock>
  readonly log: string[]
  readonly errors: string[]
  readonly gates: Map<string, () => void>
  hold: boolean
} {
  const clock = createVirtualClock()
  const log: string[] = []
  const errors: string[] = []
  const gates = new Map<string, () => void>()
  const r = { clock, log, errors, gates, hold: true } as { hold: boolean } & Record<string, unknown>
  const process = async (key: string, slot: Slot): Promise<void> => {
    log.push(`+${key}`)
    const gate = (): Promise<void> => new Promise((resolve) => gates.set(key, resolve))
    if (key.startsWith('throw')) throw new Error('boom')
    if (key.startsWith('slow')) await slot.outside(gate)
    else if (r.hold) await gate()
    log.push(`-${key}`)
  }
  const queue = createQueue({ clock, limit, process, failed: (key) => errors.push(key) })
  return Object.assign(r, { queue }) as never
}

it('one worker per key; a key added during its work runs once more, not twice', async () => {
  const { queue, clock, log, gates } = rig()
  queue.add('a')
  queue.add('a')
  queue.add('a')
  await clock.settle()
  expect(log).toEqual(['+a'])
  gates.get('a')?.()
  await clock.settle()
  expect(log).toEqual(['+a', '-a', '+a'])
  gates.get('a')?.()
  await clock.settle()
  expect(queue.idle).toBe(true)
})

it('keys run at once up to the limit, fresh ones before background ones', async () => {
  const { queue, clock, log, gates } = rig(1)
  queue.add('x')
  queue.add('later', { background: true })
  queue.add('fresh')
  await clock.settle()
  gates.get('x')?.()
  await clock.settle()
  expect(log).toEqual(['+x', '-x', '+fresh'])
})

it('a key that waits outside does not keep others from its place', async () => {
  const { queue, clock, log, gates } = rig(1)
  queue.add('slow')
  queue.add('b')
  await clock.settle()
  expect(log).toEqual(['+slow', '+b'])
  gates.get('slow')?.()
  await clock.settle()
  expect(log).toEqual(['+slow', '+b'])
  gates.get('b')?.()
  await clock.settle()
  expect(log).toEqual(['+slow', '+b', '-b', '-slow'])
  expect(queue.idle).toBe(true)
})

it('a delayed key comes at its time, the earliest wins, and a kick brings it forward', async () => {
  const r = rig()
  r.hold = false
  r.queue.add('d', { delayMs: 500 })
  r.queue.add('d', { delayMs: 100 })
  r.queue.add('d', { delayMs: 900 })
  await r.clock.advance(99)
  expect(r.log).toEqual([])
  await r.clock.advance(1)
  expect(r.log).toEqual(['+d', '-d'])
  r.queue.add('e', { delayMs: 500 })
  r.queue.add('e')
  await r.clock.advance(1000)
  expect(r.log).toEqual(['+d', '-d', '+e', '-e'])
})

it('a pass that throws is reported and delays nobody', async () => {
  const r = rig()
  r.hold = false
  r.queue.add('throw')
  r.queue.add('ok')
  await r.clock.settle()
  expect(r.errors).toEqual(['throw'])
  expect(r.log).toContain('-ok')
})

it('stop waits for the keys in hand and begins no other', async () => {
  const { queue, clock, log, gates } = rig(1)
  queue.add('a')
  queue.add('b')
  await clock.settle()
  let stopped = false
  const stopping = queue.stop().then(() => (stopped = true))
  await clock.settle()
  expect(stopped).toBe(false)
  gates.get('a')?.()
  await stopping
  expect(log).toEqual(['+a', '-a'])
})
