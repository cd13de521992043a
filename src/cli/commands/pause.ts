import type { Define } from '../context.ts'
import { defineVerb } from '../lifecycle.ts'
import { goals } from '../wait.ts'

export const define: Define = (command, run) =>
  defineVerb(command, run, {
    examples: ['holdfast pause web', 'holdfast resume web'],
    act: (client, id) => client.sandboxes.pause(id),
    goal: () => goals.paused,
  })
