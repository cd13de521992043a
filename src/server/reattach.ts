import type { EngineHost } from '../engines/host.ts'
import type { GuestTarget } from '../guest/guest.ts'
import type { Store } from '../store/store.ts'

/** How many instances are looked into at once after a start: enough to be done soon, little enough not to be felt. */
const AT_ONCE = 3

export interface ReattachOptions {
  readonly store: Store
  readonly engines: EngineHost
  /** Ends what an older epoch left in the foreground of one instance. */
  readonly reap: (target: GuestTarget) => Promise<unknown>
  readonly failed: (sandbox: string, error: string) => void
}

/**
 * After a crash, commands that a client of the former server waited for may still run inside the instances, and
 * nobody will ever read what they say. Ends them, in the background; an instance itself is never touched.
 */
export async function endStaleCommands(options: ReattachOptions): Promise<void> {
  const { items } = await options.store.read((tx) => tx.sandboxes({ phases: ['Running'] }))
  const targets: GuestTarget[] = []
  for (const record of items) {
    const engine = options.engines.get(record.engine)
    const { instance } = record
    if (
      engine === null ||
      !engine.capabilities.lanes ||
      instance?.engineId == null ||
      instance.startedAt === null
    )
      continue
    targets.push({ engine, sandbox: record.id, engineId: instance.engineId, startedAt: instance.startedAt })
  }
  const queue = targets.values()
  const worker = async (): Promise<void> => {
    for (const target of queue) {
      try {
        await options.reap(target)
      } catch (error) {
        options.failed(target.sandbox, error instanceof Error ? error.message : String(error))
      }
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}
