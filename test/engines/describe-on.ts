import { describe, test } from 'vitest'
import { requires, type TestedEngine } from './required.ts'

/**
 * `describe` for tests that need an engine, given why this machine has not what they need, or null. Without it one
 * skipped test says why, or one that fails where `HOLDFAST_REQUIRE_ENGINES` names the engine.
 */
export function describeOn(
  engine: TestedEngine,
  missing: string | null,
): (name: string, tests: () => void) => void {
  if (missing === null) return (name, tests) => void describe(name, tests)
  if (!requires(engine)) return (name) => void describe(name, () => test.skip(missing, () => undefined))
  return (name) =>
    void describe(name, () =>
      test('the machine has what they need', () => {
        throw new Error(`HOLDFAST_REQUIRE_ENGINES names ${engine}: ${missing}`)
      }),
    )
}
