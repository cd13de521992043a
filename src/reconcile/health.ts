import type { Engine } from '../engines/engine.ts'
import type { EngineHealth } from '../engines/host.ts'
import { sameRun, type EngineRun } from '../model/facts.ts'
import type { Clock } from '../model/clock.ts'

/** How long a health probe may take, ms. */
const PROBE_LIMIT_MS = 5_000
/** Between probes of an engine that answers, ms. */
const HEALTHY_EVERY_MS = 10_000
/** Between probes of one that does not: from the first to the longest, ms. */
const SICK_FIRST_MS = 250
const SICK_LONGEST_MS = 3_000

export interface HealthMonitor {
  health(): EngineHealth
  /** Something failed as if the engine were away: look now. */
  suspect(): void
  stop(): void
}

/** `first`: it answers, and was not asked before. */
export type Change = 'first' | 'back' | 'away' | 'restarted'

export interface HealthOptions {
  readonly engine: Engine
  readonly clock: Clock
  /** The engine answers after it did not, or answers as another run: everything is looked at. */
  readonly changed: (what: Change, detail: string) => void
}

/** Watches one engine. Health never decides anything about a sandbox: it only says when to look again. */
export function createHealthMonitor(options: HealthOptions): HealthMonitor {
  const { engine, clock } = options
  let health: EngineHealth = { ok: false, error: 'not asked yet', since: clock.now() }
  let asked = false
  let run: EngineRun | null = null
  let wait = SICK_FIRST_MS
  let cancel: (() => void) | null = null
  let probing = false
  let again = false
  let stopped = false

  function schedule(ms: number): void {
    cancel?.()
    if (!stopped) cancel = clock.after(ms, () => void probe())
  }

  async function probe(): Promise<void> {
    if (probing) {
      again = true
      return
    }
    probing = true
    try {
      const info = await engine.info({ limitMs: PROBE_LIMIT_MS })
      answered(info.run)
    } catch (error) {
      away(error instanceof Error ? error.message : String(error))
    }
    probing = false
    if (again) {
      again = false
      schedule(SICK_FIRST_MS)
    } else {
      schedule(health.ok ? HEALTHY_EVERY_MS : wait)
    }
  }

  function answered(now: EngineRun): void {
    wait = SICK_FIRST_MS
    const restarted = run !== null && !sameRun(run, now)
    run = now
    if (!health.ok) {
      health = { ok: true, error: null, since: clock.now() }
      options.changed(!asked ? 'first' : restarted ? 'restarted' : 'back', 'it answers')
    } else if (restarted) {
      options.changed('restarted', 'it answers as another run')
    }
    asked = true
  }

  function away(error: string): void {
    if (health.ok || !asked) {
      health = { ok: false, error, since: clock.now() }
      options.changed('away', error)
    } else {
      health = { ...health, error }
    }
    asked = true
    wait = Math.min(SICK_LONGEST_MS, wait * 2)
  }

  schedule(0)
  return {
    health: () => health,
    suspect() {
      if (!stopped && health.ok) schedule(0)
    },
    stop() {
      stopped = true
      cancel?.()
    },
  }
}
