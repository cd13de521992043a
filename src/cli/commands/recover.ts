import type { Define } from '../context.ts'
import { defineVerb } from '../lifecycle.ts'
import { goals } from '../wait.ts'

export const define: Define = (command, run) =>
  defineVerb(command, run, {
    examples: [
      'holdfast explain web    # what survives',
      'holdfast recover web    # a new instance on the same volumes',
    ],
    act: (client, id) => client.sandboxes.recover(id),
    // Until the reconciler has looked, the trouble that recovery is for still shows.
    goal: () => ({ what: goals.running.what, reached: goals.running.reached }),
  })
