import { afterAll, beforeAll, describe, test } from 'vitest'
import { expiry } from '../campaign/expiry.ts'
import { openRig, type Rig } from '../campaign/world.ts'
import { dockerMissing } from '../support/docker-subject.ts'

// The driver makes no difference to expiry, so one engine is enough: a run takes the minute that the shortest timeout is.
const kind = (await dockerMissing()) === null ? 'docker' : 'local'

describe(`expiry on ${kind}`, () => {
  let rig: Rig
  beforeAll(async () => {
    rig = await openRig(kind)
    await rig.server.start()
  })
  afterAll(() => rig.destroy())
  test('a renewed sandbox outlives restarts; expired ones go, also when the server was down at the time', () =>
    expiry(rig))
})
