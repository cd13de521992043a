import { EngineError } from '../../model/facts.ts'
import type { Call, InstanceStats } from '../engine.ts'
import { type Api, budget } from './api.ts'
import { parseTime } from './time.ts'
import type { ContainerInspect, StatsMessage } from './types.ts'

export async function readStats(api: Api, id: string, call: Call): Promise<InstanceStats> {
  const rest = budget(api.clock, call)
  const what = `reading the use of instance ${id}`
  const path = `/containers/${encodeURIComponent(id)}`
  const [stats, inspect] = await Promise.all([
    api.get<StatsMessage>({
      what,
      method: 'GET',
      path: `${path}/stats`,
      query: { stream: false, 'one-shot': true },
      call: rest(),
    }),
    api.get<ContainerInspect>({ what, method: 'GET', path: `${path}/json`, call: rest() }),
  ])
  const at = parseTime(stats.read)
  if (!inspect.State.Running || at === null)
    throw new EngineError('conflict', 'none', `${what}: it does not run`)
  const limit = inspect.HostConfig?.Memory ?? 0
  return {
    at,
    cpuMs: Math.floor((stats.cpu_stats?.cpu_usage?.total_usage ?? 0) / 1e6),
    memoryBytes: usedMemory(stats),
    // Without a limit the engine tells the machine's whole memory, which is nobody's limit.
    memoryLimitBytes: limit > 0 ? limit : null,
    pids: stats.pids_stats?.current ?? 0,
  }
}

/** What cannot be given back at once: the page cache that is not in use is left out, as the engine's own client does. */
function usedMemory(stats: StatsMessage): number {
  const { usage = 0, stats: detail = {} } = stats.memory_stats ?? {}
  const cache = detail['total_inactive_file'] ?? detail['inactive_file'] ?? 0
  return cache < usage ? usage - cache : usage
}
