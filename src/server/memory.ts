import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Clock } from '../model/clock.ts'

/** When the start is over and what it needed is garbage, ms. */
const SETTLED_MS = 3_000

/**
 * Gives back the memory that only the start needed: the engine of JavaScript keeps it until it is short of some, which
 * an idle server never is. About a tenth of the process, measured.
 */
export function giveBackStartupMemory(clock: Clock): void {
  clock.after(SETTLED_MS, () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as (options: {
      type: 'major'
      execution: 'sync'
      flavor: 'last-resort'
    }) => void
    collect({ type: 'major', execution: 'sync', flavor: 'last-resort' })
  })
}
