import { setImmediate } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { Clock } from '../../model/clock.ts'
import { createFreezeGate } from './freeze-gate.ts'

/** Time stands still: what is late is made so by hand. */
function stillClock(): { clock: Clock; late: () => void } {
  const timers = new Set<() => void>()
  const clock: Clock = {
    now: () => 0,
    monotonic: () => 0,
    after(_, fn) {
      timers.add(fn)
      return () => void timers.delete(fn)
    },
  }
  return {
    clock,
    late() {
      for (const fn of timers) fn()
    },
  }
}

const call = { limitMs: 1_000 }

function step(log: string[], name: string): { run: () => Promise<string>; end: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>()
  return {
    end: resolve,
    async run() {
      log.push(`${name} begins`)
      await promise
      log.push(`${name} ends`)
      return name
    },
  }
}

test('a freeze waits for the starts under way and holds back those that come later', async () => {
  const gate = createFreezeGate(stillClock().clock)
  const log: string[] = []
  const [first, second, freeze, later] = ['first', 'second', 'freeze', 'later'].map((name) => step(log, name))
  if (!first || !second || !freeze || !later) throw new Error('unreachable')
  const all = [
    gate.starting('a', call, first.run),
    gate.starting('a', call, second.run),
    gate.freezing('a', call, freeze.run),
    gate.starting('a', call, later.run),
  ]
  await setImmediate()
  expect(log).toEqual(['first begins', 'second begins'])
  first.end()
  await setImmediate()
  expect(log).not.toContain('freeze begins')
  second.end()
  await setImmediate()
  expect(log.at(-1)).toBe('freeze begins')
  freeze.end()
  later.end()
  expect(await Promise.all(all)).toEqual(['first', 'second', 'freeze', 'later'])
  expect(log.slice(-3)).toEqual(['freeze ends', 'later begins', 'later ends'])
})

test('instances do not hold up each other, and a failure opens the gate', async () => {
  const gate = createFreezeGate(stillClock().clock)
  const log: string[] = []
  const slow = step(log, 'slow')
  const waiting = gate.starting('a', call, slow.run)
  expect(await gate.freezing('b', call, () => Promise.resolve('frozen'))).toBe('frozen')
  await expect(gate.freezing('b', call, () => Promise.reject(new Error('no')))).rejects.toThrow('no')
  expect(await gate.starting('b', call, () => Promise.resolve('started'))).toBe('started')
  slow.end()
  await waiting
})

test('a wait that is too long is a timeout without effect', async () => {
  const { clock, late } = stillClock()
  const gate = createFreezeGate(clock)
  const log: string[] = []
  const stuck = step(log, 'stuck')
  const waiting = gate.starting('a', call, stuck.run)
  const freezing = gate.freezing('a', call, () => Promise.resolve(log.push('frozen')))
  late()
  await expect(freezing).rejects.toMatchObject({ kind: 'timeout', effect: 'none' })
  expect(log).toEqual(['stuck begins'])
  stuck.end()
  await waiting
})
