import { expect, it } from 'vitest'
import { explore } from '../prove/explore.ts'
import { SCENES } from '../prove/explore/scenes.ts'
import { tellFailure } from '../prove/explore-runs.ts'

/** `npm run crash -- --explore` visits all states; this is where each scene begins. */
it.each(SCENES.map((s) => s.name))(
  '%s: in no state that two clients can bring about anything is broken',
  {
    timeout: 120_000,
  },
  async (name) => {
    const found = await explore(name, 40)
    expect(found.failures.map(tellFailure).join('\n')).toBe('')
    expect(found.states).toBe(40)
  },
)
