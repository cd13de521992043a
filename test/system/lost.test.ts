import { afterAll, beforeAll, describe, test } from 'vitest'
import { foreignUntouched, lostAndRecovered, recoveredByPolicy } from '../campaign/lost.ts'
import { openRig, type Rig, type World } from '../campaign/world.ts'
import { dockerMissing } from '../support/docker-subject.ts'

const missing = await dockerMissing()

function suite(kind: World['kind']): void {
  describe(`instances removed behind the server's back: ${kind}`, () => {
    let rig: Rig
    beforeAll(async () => {
      rig = await openRig(kind)
      await rig.server.start()
    })
    afterAll(() => rig.destroy())
    test('Lost, explained, and recovered on the same volume', () => lostAndRecovered(rig))
    test('recovered by itself with restart policy always', () => recoveredByPolicy(rig))
    if (kind === 'docker')
      test('objects of others are byte for byte what they were', () => foreignUntouched(rig))
  })
}

suite('local')
if (missing === null) suite('docker')
else test.skip(`docker: ${missing}`, () => undefined)
