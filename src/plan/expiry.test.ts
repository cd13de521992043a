import { expect, it } from 'vitest'
import { CLOCK_CONFIRM_MS, readClock, trustClock } from './expiry.ts'

it('a wall clock that runs along may expire', () => {
  expect(readClock(trustClock(1000, 0), 31_000, 30_000).mayExpire).toBe(true)
})

it.each([3_600_000, -3_600_000])(
  'a step of %i ms holds expiry until it is confirmed a minute later',
  (step) => {
    let reading = readClock(trustClock(0, 0), 1000 + step, 1000)
    expect(reading.mayExpire).toBe(false)
    reading = readClock(reading.trust, 30_000 + step, 30_000)
    expect(reading.mayExpire).toBe(false)
    const at = 1000 + CLOCK_CONFIRM_MS
    reading = readClock(reading.trust, at + step, at)
    expect(reading.mayExpire).toBe(true)
  },
)

it('a step that is taken back was never believed', () => {
  const jumped = readClock(trustClock(0, 0), 3_601_000, 1000)
  const back = readClock(jumped.trust, 2000, 2000)
  expect(back).toEqual({ trust: { offsetMs: 0, suspect: null }, mayExpire: true })
})
