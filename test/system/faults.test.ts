import { describe, expect, test } from 'vitest'
import { daemonHangs } from '../campaign/faults/daemon-hang.ts'
import { killedMidStep } from '../campaign/faults/daemon-kill.ts'
import { stateDiskFull } from '../campaign/faults/disk-full.ts'
import { copiedWhilePaused, replacedWhilePaused, twoServers } from '../campaign/faults/two-servers.ts'
import { createRandom } from '../campaign/random.ts'
import { dockerMissing, programsMissing } from '../support/docker-subject.ts'

const missing = await dockerMissing()
const noDaemon = missing ?? programsMissing('dockerd', 'containerd', 'ip')
const noMount = programsMissing('mount', 'umount')
const SEED = 4

// One step of each; all of them: node test/campaign/faults.ts.
describe.skipIf(noDaemon !== null)(`engine processes${noDaemon === null ? '' : ` (${noDaemon})`}`, () => {
  test('the daemon is killed in the middle of a stop, with live restore', async () => {
    const random = createRandom(SEED)
    expect(
      await killedMidStep({ victim: 'dockerd', liveRestore: true, kinds: ['stop-instance'], random }),
    ).toMatch(/^[1-9]\d* steps cut/)
  })
  test('its containerd is killed in the middle of a start', async () => {
    const random = createRandom(SEED)
    expect(
      await killedMidStep({ victim: 'containerd', liveRestore: false, kinds: ['start-instance'], random }),
    ).toMatch(/^[1-9]\d* steps cut/)
  })
  test('the daemon hangs and goes on', async () => {
    expect(await daemonHangs(8_000)).toMatch(/[1-9]\d* reads meanwhile/)
  })
})

describe('what the server stands on', () => {
  test('two servers on one state directory', () => twoServers('local'))
  test.skipIf(noMount !== null)('a full disk: local', () => stateDiskFull('local', 4_000))
  test.skipIf(missing !== null || noMount !== null)('a full disk: docker', () =>
    stateDiskFull('docker', 4_000),
  )
  test.skipIf(missing !== null)('a state directory copied while its server is paused', () =>
    copiedWhilePaused(),
  )
  test.skipIf(missing !== null)('a state directory replaced while its server is paused', () =>
    replacedWhilePaused(),
  )
})
