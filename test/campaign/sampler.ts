import { setTimeout as delay } from 'node:timers/promises'
import type { History } from './model.ts'
import type { World } from './world.ts'

/** Between two looks at the whole engine, ms. */
const SAMPLE_EVERY_MS = 400

export interface Sampler {
  readonly samples: number
  stop(): Promise<void>
}

/** Looks at the engine all the time: never may one sandbox have two instances on it. `heard` gets the names of what runs. */
export function startSampler(
  world: World,
  installation: string,
  history: Pick<History, 'violated'>,
  heard: (at: number, running: Readonly<Record<string, readonly string[]>>) => void = () => undefined,
): Sampler {
  let stopped = false
  let samples = 0
  const told = new Set<string>()
  const run = async (): Promise<void> => {
    while (!stopped) {
      const names = new Map<string, string[]>()
      const running: Record<string, string[]> = {}
      for (const i of await world.instances(installation)) {
        names.set(i.sandbox, [...(names.get(i.sandbox) ?? []), i.name])
        if (i.running) running[i.sandbox] = [...(running[i.sandbox] ?? []), i.name]
      }
      samples++
      heard(Date.now(), running)
      for (const [sandbox, all] of names) {
        if (all.length < 2 || told.has(sandbox)) continue
        told.add(sandbox)
        history.violated(`${sandbox} has ${all.length} instances at once: ${all.join(', ')}`)
      }
      await delay(SAMPLE_EVERY_MS)
    }
  }
  const running = run().catch((error: unknown) =>
    history.violated(`the engine could not be listed: ${String(error)}`),
  )
  return {
    get samples() {
      return samples
    },
    async stop() {
      stopped = true
      await running
    },
  }
}
