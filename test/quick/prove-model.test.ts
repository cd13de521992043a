import { expect, it } from 'vitest'
import { runModel } from '../prove/model.ts'
import { tell } from '../prove/model-runs.ts'
import { poisoned } from '../prove/poison.ts'

/** `npm run crash -- --model` plays hundreds; this is a sample. */
it(
  'what was acknowledged holds through random requests, faults, crashes and other people',
  {
    timeout: 120_000,
  },
  async () => {
    const report = await runModel({ seed: 7, runs: 12 })
    expect(report.failure === null ? '' : tell(report.failure)).toBe('')
    expect(report.crashes).toBeGreaterThan(0)
    expect(report.faults).toBeGreaterThan(0)
  },
)

it('a sandbox whose every call fails or hangs delays no other', { timeout: 120_000 }, async () => {
  expect(await poisoned({ seed: 1, runs: 8 })).toBe('')
})
