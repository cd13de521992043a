import { existsSync } from 'node:fs'
import { afterAll, beforeAll, describe } from 'vitest'
import { createGuest } from '../../src/guest/index.ts'
import { systemClock, systemIds } from '../../src/server/system.ts'
import { guestSuite, type GuestRig } from './guest-suite.ts'
import { createShellExec, type ShellExec } from './shell-exec.ts'

/** Large enough to cross every buffer many times. */
const BYTES = 20 * 1024 * 1024

/** The guest's properties on one of this machine's shells; a file of its own each, so that they run side by side. */
export function guestOnShell(shell: string): void {
  describe.skipIf(!existsSync(shell))(`lanes on ${shell}`, () => {
    let exec: ShellExec
    let rig: GuestRig
    beforeAll(async () => {
      // An image may set any variable; those of the lane's own script must not meet them.
      const env = { t: 'mine', i: 'mine', d: 'mine', e: 'mine', S: 'mine', s: 'mine', x: 'mine' }
      exec = await createShellExec({ shell, env })
      rig = {
        guest: createGuest({ clock: systemClock(), ids: systemIds(), epoch: 1 }),
        target: { engine: exec.engine, sandbox: 'sandbox', engineId: 'instance', startedAt: 1 },
      }
    })
    afterAll(async () => {
      await rig.guest.close()
      await exec.close()
    })
    guestSuite(() => rig, BYTES)
  })
}
