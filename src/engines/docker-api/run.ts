import { readFile, stat } from 'node:fs/promises'
import { EngineError, type EngineRun } from '../../model/facts.ts'
import type { Call } from '../engine.ts'
import type { Api } from './api.ts'
import { parseTime } from './time.ts'

/** Tells one run of the engine from the next, and under which run an observation held. */
export interface RunReader {
  read(call: Call): Promise<EngineRun>
  /** Observes within one run: reads again when the engine was restarted on the way. `rest` gives what is left of the limit. */
  during<T>(
    rest: () => Call,
    observe: () => Promise<T>,
  ): Promise<{ readonly value: T; readonly run: EngineRun }>
}

/** An engine that restarts this often within one observation gives nothing that can be relied on. */
const MAX_ROUNDS = 5

/**
 * Docker's run is the id of its default bridge network. The daemon makes that network anew at every start, unless it
 * was left running containers (live restore): then they were not ended by its restart, and the id stays. A daemon
 * without a default bridge is told by its socket, which it makes anew at every start.
 */
export function createBridgeRunReader(api: Api): RunReader {
  const bootId = onceRead('/proc/sys/kernel/random/boot_id')
  const { socketPath } = api.connection

  return createRunReader(async (call) => {
    const bridge = await readBridge(api, call)
    const engine = bridge?.id ?? (socketPath === null ? null : await socketRun(socketPath))
    return { engine, boot: socketPath === null ? null : await bootId() }
  })
}

export interface Bridge {
  readonly id: string
  /** When the daemon made it, at its start and after it ended what an earlier daemon had left running; null when not told. */
  readonly createdAt: number | null
}

/** The default bridge network; null on a daemon that has none. */
export async function readBridge(api: Api, call: Call): Promise<Bridge | null> {
  const networks = await api.get<readonly { Name?: string; Id?: string; Created?: string }[]>({
    what: 'asking the engine for its run',
    method: 'GET',
    path: '/networks',
    query: { filters: JSON.stringify({ type: ['builtin'], name: ['bridge'] }) },
    call,
  })
  const found = networks.find((network) => network.Name === 'bridge')
  return found?.Id === undefined ? null : { id: found.Id, createdAt: parseTime(found.Created) }
}

/** The rule that makes an observation's run true, over any way of reading the run. */
export function createRunReader(read: (call: Call) => Promise<EngineRun>): RunReader {
  // Runs never come back. So the same run seen before and after an observation was the run during all of it, and
  // "before" may be as old as it likes: one extra call per observation instead of two.
  let last: EngineRun | null = null
  const note = async (call: Call): Promise<EngineRun> => {
    last = await read(call)
    return last
  }
  return {
    read: note,
    async during(rest, observe) {
      for (let round = 0; round < MAX_ROUNDS; round++) {
        const before = last ?? (await note(rest()))
        const value = await observe()
        const run = await note(rest())
        if (before.engine === run.engine && before.boot === run.boot) return { value, run }
      }
      throw new EngineError(
        'failed',
        'none',
        `The engine was restarted ${MAX_ROUNDS} times while it was asked`,
      )
    },
  }
}

async function socketRun(path: string): Promise<string | null> {
  try {
    const { ino, ctimeMs } = await stat(path)
    return `sock:${ino}:${Math.floor(ctimeMs)}`
  } catch {
    // Not told apart then: what cannot be told counts as another run, which is the safe side.
    return null
  }
}

/** A file that never changes while this process lives; null where it does not exist. */
function onceRead(path: string): () => Promise<string | null> {
  let value: Promise<string | null> | null = null
  return () => {
    value ??= readFile(path, 'utf8').then(
      (text) => text.trim(),
      // Only Linux has it; elsewhere the boot is not told.
      () => null,
    )
    return value
  }
}
