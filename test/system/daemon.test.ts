import { describe, test } from 'vitest'
import { daemonFate, openDaemonRig } from '../campaign/daemon.ts'
import { dockerMissing } from '../support/docker-subject.ts'

const missing = await dockerMissing()

// Three of the six fates; all of them: node test/campaign/daemon.ts.
describe.skipIf(missing !== null)('a Docker daemon that ends under its sandboxes', () => {
  test.each([
    ['TERM', false],
    ['TERM', true],
    ['power-cut', true],
  ] as const)('%s (server killed with it: %s)', async (how, serverToo) => {
    const { rig, daemon, ...opened } = await openDaemonRig()
    try {
      await daemonFate(rig, daemon, how, serverToo)
    } finally {
      await opened.destroy()
    }
  })
})
