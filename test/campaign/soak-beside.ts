import type { Sandbox } from '@holdfast/client'
import type { TestServer } from '../support/server.ts'
import { labelsOf, plantForeign } from './foreign.ts'
import { reach, workspaceUid } from './stage.ts'
import type { History } from './model.ts'
import { WORKLOAD } from './model.ts'
import type { World } from './world.ts'

export interface Beside {
  verify(history: Pick<History, 'violated' | 'count'>): Promise<void>
  remove(): Promise<void>
}

/**
 * Objects of others beside a sandbox that no client touches, one of them on the name of its next instance. Its spec is
 * changed at once, so that through all faults it needs that name. Docker only.
 */
export async function plantBeside(server: TestServer, world: World, untouched: Set<string>): Promise<Beside> {
  if (world.kind !== 'docker') return { verify: async () => undefined, remove: async () => undefined }
  const { id } = await server.client.sandboxes.create({
    image: { uri: world.image },
    entrypoint: [...WORKLOAD],
    stopGraceSeconds: 2,
  })
  untouched.add(id)
  const made: Sandbox = await reach(server, id, 'Running')
  const volume = (await server.client.volumes.get(workspaceUid(made))).physicalName
  world.foreign.add(`copied-${id}`)
  const planted = await plantForeign(world.image, id, 2, {
    instance: await labelsOf('containers', made.instance?.engineId ?? ''),
    volume: await labelsOf('volumes', volume),
  })
  await server.client.sandboxes.update(id, { env: { NEEDS: 'the name that is taken' } })
  return {
    async verify(history) {
      const changes = await planted.changes()
      for (const change of changes) history.violated(`a foreign object changed: ${change}`)
      history.count('foreign objects compared')
      const { status } = await server.client.sandboxes.get(id)
      // Failed: it was tried so often that the breaker opened.
      const held = ['Blocked', 'Failed'].includes(status.state) && status.message.includes('already in use')
      if (!held && status.state !== 'Unknown')
        history.violated(`${id}, whose next name is taken, is ${status.state}: ${status.message}`)
      await planted.release()
      await server.client.sandboxes.recover(id)
      await reach(server, id, 'Running')
      await server.client.sandboxes.remove(id)
    },
    remove: () => planted.remove(),
  }
}
