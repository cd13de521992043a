import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { App, Context } from './context.ts'

/** Seconds; from a store read to a slow archive. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10]

export interface Metrics {
  readonly contentType: string
  /** All figures, as of now. */
  scrape(): Promise<string>
}

type Refresh = () => Promise<void>

function stateGauges(registry: Registry, ctx: Context): Refresh {
  const registers = [registry]
  const gauge = (name: string, help: string, labelNames: string[] = []): Gauge =>
    new Gauge({ name, help, labelNames, registers })
  const sandboxes = gauge('holdfast_sandboxes', 'Sandboxes by state.', ['state'])
  const volumes = gauge('holdfast_volumes', 'Volumes by state.', ['state'])
  const openSteps = gauge('holdfast_open_steps', 'Journaled steps whose outcome is not known.')
  const engines = gauge('holdfast_engine_up', '1 when the engine answers.', ['engine'])
  const seq = gauge('holdfast_last_event_seq', 'Sequence number of the newest event.')
  return async () => {
    const now = await ctx.store.read(async (tx) => ({
      sandboxes: (await tx.sandboxes({})).items,
      volumes: (await tx.volumes({})).items,
      open: (await tx.openSteps()).length,
      seq: await tx.lastEventSeq(),
    }))
    seq.set(now.seq)
    openSteps.set(now.open)
    sandboxes.reset()
    for (const s of now.sandboxes) sandboxes.inc({ state: s.status.phase })
    volumes.reset()
    for (const v of now.volumes) volumes.inc({ state: v.state })
    for (const e of ctx.engines.all()) engines.set({ engine: e.id }, ctx.engines.health(e.id).ok ? 1 : 0)
  }
}

function processFigures(registry: Registry, ctx: Context): Refresh {
  const registers = [registry]
  const counter = (name: string, help: string, labelNames: string[] = []): Counter =>
    new Counter({ name, help, labelNames, registers })
  const queue = new Gauge({
    name: 'holdfast_queue_keys',
    help: 'Keys that wait or are worked on.',
    labelNames: ['state'],
    registers,
  })
  const steps = counter('holdfast_steps_total', 'Steps taken on engines.', ['kind'])
  const passes = counter('holdfast_passes_total', 'Reconciler passes.')
  const failures = counter('holdfast_step_failures_total', 'Steps that failed.')
  const cpu = counter('process_cpu_seconds_total', 'User and system CPU time.')
  const memory = new Gauge({ name: 'process_resident_memory_bytes', help: 'Resident memory.', registers })
  const started = new Gauge({ name: 'process_start_time_seconds', help: 'Since the epoch.', registers })
  started.set(ctx.startedAt / 1000)
  return async () => {
    const figures = ctx.controller.stats()
    queue.set({ state: 'queued' }, figures.queued)
    queue.set({ state: 'running' }, figures.running)
    // Counted elsewhere, and copied whole.
    for (const copied of [steps, passes, failures, cpu]) copied.reset()
    for (const [kind, n] of Object.entries(figures.steps)) steps.inc({ kind }, n)
    passes.inc(figures.passes)
    failures.inc(figures.failures)
    const used = process.cpuUsage()
    cpu.inc((used.user + used.system) / 1e6)
    memory.set(process.memoryUsage.rss())
  }
}

/**
 * Times every request by its route's pattern. All else is read at each scrape: nothing is kept up to date for a scrape
 * that never comes. Each app has a registry of its own.
 */
export function addMetrics(app: App, ctx: Context): Metrics {
  const registry = new Registry()
  const duration = new Histogram({
    name: 'holdfast_http_request_duration_seconds',
    help: 'Until the answer has been sent.',
    labelNames: ['method', 'route', 'status'],
    buckets: BUCKETS,
    registers: [registry],
  })
  const refreshers = [stateGauges(registry, ctx), processFigures(registry, ctx)]
  app.addHook('onResponse', async (request, reply) => {
    const route = request.routeOptions.url ?? 'unknown'
    duration.observe(
      { method: request.method, route, status: String(reply.statusCode) },
      reply.elapsedTime / 1000,
    )
  })
  return {
    contentType: registry.contentType,
    async scrape() {
      for (const refresh of refreshers) await refresh()
      return registry.metrics()
    },
  }
}
