import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { expect, test } from 'vitest'
import { isAlive, parseStat, signal, statOf } from './proc.ts'

const FIELDS = `S 1 77 78 0 -1 4194560 83 0 0 0 5 7 11 13 20 0 1 0 215792 2654208 404`

test('the start time is found behind a name that looks like more fields', () => {
  expect(parseStat(`4711 (a) S 1 (b c) ${FIELDS}`)).toEqual({
    pid: 4711,
    start: '215792',
    state: 'S',
    session: 78,
    ticks: 36,
  })
  expect(parseStat('4711 (cut short) S 1')).toBeNull()
  expect(parseStat('')).toBeNull()
})

test.skipIf(process.platform !== 'linux')(
  'a process is its pid and its start, and an ended one is neither',
  async () => {
    const child = spawn('sleep', ['infinity'], { stdio: 'ignore' })
    const pid = child.pid ?? 0
    try {
      const { start = '' } = statOf(pid) ?? {}
      expect(isAlive({ pid, start })).toBe(true)
      expect(isAlive({ pid, start: `${start}0` })).toBe(false)
      expect(signal({ pid, start: `${start}0` }, 'SIGKILL')).toBe(false)
      expect(signal({ pid, start }, 'SIGKILL')).toBe(true)
      await once(child, 'exit')
      expect(isAlive({ pid, start })).toBe(false)
      expect(signal({ pid, start }, 'SIGKILL')).toBe(false)
    } finally {
      child.kill('SIGKILL')
    }
  },
)
