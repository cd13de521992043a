import { afterAll, afterEach, beforeAll, describe } from 'vitest'
import { callTests } from './conformance/calls.ts'
import { copyTests } from './conformance/copy.ts'
import { execTests } from './conformance/exec.ts'
import { instanceTests } from './conformance/instances.ts'
import { outputTests } from './conformance/output.ts'
import { createRig } from './conformance/rig.ts'
import type { Subject } from './conformance/subject.ts'
import { volumeTests } from './conformance/volumes.ts'

export { type Commands, posixCommands, type SeededImage, type Subject } from './conformance/subject.ts'

/**
 * The contract of `src/engines/engine.ts` as tests, the same for every driver. An ability that the engine declares
 * not to have must be refused as `unsupported`. All that is made carries a label of the run and is removed after each
 * test, also after a failed one.
 */
export function conformance(name: string, factory: () => Promise<Subject>): void {
  describe(`conformance: ${name}`, () => {
    const rig = createRig()
    beforeAll(() => rig.open(factory))
    afterEach(() => rig.sweep())
    afterAll(() => rig.close())
    instanceTests(rig)
    volumeTests(rig)
    execTests(rig)
    outputTests(rig)
    copyTests(rig)
    callTests(rig)
  })
}
