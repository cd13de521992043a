import type { Define } from '../context.ts'
import { defineVerb } from '../lifecycle.ts'
import { goals } from '../wait.ts'

export const define: Define = (command, run) =>
  defineVerb(command, run, {
    examples: ['holdfast stop web', 'holdfast stop $(holdfast ls -q)'],
    act: (client, id) => client.sandboxes.stop(id),
    goal: () => goals.stopped,
  })
