import type { Define } from '../context.ts'
import { defineVerb, restarted } from '../lifecycle.ts'

export const define: Define = (command, run) =>
  defineVerb(command, run, {
    examples: ['holdfast restart web'],
    act: (client, id) => client.sandboxes.restart(id),
    goal: restarted,
    needsBefore: true,
  })
