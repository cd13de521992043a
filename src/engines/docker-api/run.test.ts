import { expect, test } from 'vitest'
import type { EngineRun } from '../../model/facts.ts'
import { createRunReader } from './run.ts'

const rest = (): { limitMs: number } => ({ limitMs: 1_000 })

function restarting(): { run: () => Promise<EngineRun>; restart: () => void } {
  let run = 1
  return { run: () => Promise.resolve({ engine: `run-${run}`, boot: 'b' }), restart: () => void (run += 1) }
}

test('an observation across a restart is made again', async () => {
  const engine = restarting()
  const reader = createRunReader(engine.run)
  let rounds = 0
  const seen = await reader.during(rest, () => {
    rounds += 1
    if (rounds === 1) engine.restart()
    return Promise.resolve(`round ${rounds}`)
  })
  expect(seen).toEqual({ value: 'round 2', run: { engine: 'run-2', boot: 'b' } })
})

test('a restart between two observations costs the second one more round', async () => {
  const engine = restarting()
  const reader = createRunReader(engine.run)
  await reader.during(rest, () => Promise.resolve(1))
  engine.restart()
  let rounds = 0
  const seen = await reader.during(rest, () => Promise.resolve((rounds += 1)))
  expect(seen.run.engine).toBe('run-2')
  expect(rounds).toBe(2)
})

test('an engine that restarts for ever is an error, not a guess', async () => {
  const engine = restarting()
  const observing = createRunReader(engine.run).during(rest, () => Promise.resolve(engine.restart()))
  await expect(observing).rejects.toMatchObject({ kind: 'failed', effect: 'none' })
})
