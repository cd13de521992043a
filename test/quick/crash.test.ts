import { expect, it } from 'vitest'
import { type Placement, take } from '../prove/placement.ts'
import { SCENARIOS } from '../prove/scenarios.ts'
import { suffer, type Trouble } from '../prove/trouble.ts'

/**
 * A sample of what `npm run crash` and `npm run faults` do whole: every scenario without a crash, with a crash at some
 * of its points, and with some faults. The acknowledged state is reached, nothing is restarted that a crash alone
 * touched, and in the end rows and engine objects are one to one.
 */
const EVERY = 11
/** Where a play is long. */
const EVERY_OF_LONG = 37
const FAULT_AT = 9
const TROUBLES: readonly Trouble[] = [
  { kind: 'calls', at: FAULT_AT, times: 1, fault: 'is done, and the answer lost' },
  { kind: 'commits', at: 4, times: 2 },
  { kind: 'events', how: 'drop' },
]

const none: Omit<Placement, 'scenario'> = { hurry: false, at: [], landsAfterMs: 700, downMs: 0 }

const EACH = SCENARIOS.map((s, n) => [s.name, n] as const)

it.each(EACH)('%s: a crash at some of its points', async (scenario, n) => {
  const clean = await take({ ...none, scenario })
  expect(clean.violations).toEqual([])
  expect(clean.points).toBeGreaterThan(10)
  // Another first point for each scenario, so that all kinds of points are met.
  const every = SCENARIOS[n]?.pairs === true ? EVERY : EVERY_OF_LONG
  for (let k = 1 + (n % EVERY); k <= clean.points; k += every) {
    const { violations, labels } = await take({ ...none, scenario, at: [k] })
    expect({ at: k, labels, violations }).toEqual({ at: k, labels, violations: [] })
  }
})

it.each(EACH)('%s: something going wrong', async (scenario, n) => {
  const trouble = TROUBLES[n % TROUBLES.length] ?? null
  expect((await suffer({ scenario, trouble })).violations).toEqual([])
})
