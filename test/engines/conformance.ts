import { afterAll, afterEach, beforeAll, describe } from 'vitest'
import { callTests } from './conformance/calls.ts'
import { copyTests } from './conformance/copy.ts'
import { execTests } from './conformance/exec.ts'
import { instanceTests } from './conformance/instances.ts'
import { outputTests } from './conformance/output.ts'
import { createRig } from './conformance/rig.ts'
import { ALL_TRAITS, type Subject, type Traits } from './conformance/subject.ts'
import { traitTests } from './conformance/traits.ts'
import { volumeTests } from './conformance/volumes.ts'

export { type Commands, posixCommands, type SeededImage, type Subject } from './conformance/subject.ts'

/**
 * The contract of `src/engines/engine.ts` as tests, the same for every driver. An ability that the engine declares
 * not to have must be refused as `unsupported`. All that is made carries a label of the run and is removed after each
 * test, also after a failed one.
 *
 * `traits` says what the subject lacks by its nature, as `{ logTimes: false }`; all else is true. It is known before
 * the subject is, because tests are registered by it: none is skipped when it runs.
 */
export function conformance(
  name: string,
  factory: () => Promise<Subject>,
  traits: Partial<Traits> = {},
): void {
  describe(`conformance: ${name}`, () => {
    const rig = createRig({ ...ALL_TRAITS, ...traits })
    beforeAll(() => rig.open(factory))
    afterEach(() => rig.sweep())
    afterAll(() => rig.close())
    traitTests(rig)
    instanceTests(rig)
    volumeTests(rig)
    execTests(rig)
    outputTests(rig)
    copyTests(rig)
    callTests(rig)
  })
}
