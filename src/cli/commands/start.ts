import type { Define } from '../context.ts'
import { defineVerb } from '../lifecycle.ts'
import { goals } from '../wait.ts'

export const define: Define = (command, run) =>
  defineVerb(command, run, {
    examples: ['holdfast start web', 'holdfast start --no-wait web db'],
    act: (client, id) => client.sandboxes.start(id),
    goal: () => goals.running,
  })
