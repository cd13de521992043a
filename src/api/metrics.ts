import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { App, Context } from './context.ts'

/** Seconds; from a store read to a slow archive. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10]

/** What a scrape reads: nothing is kept up to date for a scrape that never comes. */
function addGauges(registry: Registry, ctx: Context): void {
  const registers = [registry]
  const sandboxes = new Gauge({
    name: 'holdfast_sandboxes',
    help: 'Sandboxes by state.',
    labelNames: ['state'],
    registers,
  })
  const volumes = new Gauge({
    name: 'holdfast_volumes',
    help: 'Volumes by state.',
    labelNames: ['state'],
    registers,
  })
  const openSteps = new Gauge({
    name: 'holdfast_open_steps',
    help: 'Journaled steps whose outcome is not known.',
    registers,
  })
  const engines = new Gauge({
    name: 'holdfast_engine_up',
    help: '1 when the engine answers.',
    labelNames: ['engine'],
    registers,
  })
  const queue = new Gauge({
    name: 'holdfast_queue_keys',
    help: 'Keys in the queue.',
    labelNames: ['state'],
    registers,
  })
  const steps = new Gauge({
    name: 'holdfast_steps_total',
    help: 'Steps taken on engines.',
    labelNames: ['kind'],
    registers,
  })
  const passes = new Gauge({ name: 'holdfast_passes_total', help: 'Reconciler passes.', registers })
  const failures = new Gauge({ name: 'holdfast_step_failures_total', help: 'Steps that failed.', registers })
  const memory = new Gauge({ name: 'process_resident_memory_bytes', help: 'Resident memory.', registers })
  const cpu = new Gauge({ name: 'process_cpu_seconds_total', help: 'User and system CPU time.', registers })
  const started = new Gauge({ name: 'process_start_time_seconds', help: 'Since the epoch.', registers })
  started.set(ctx.startedAt / 1000)
  // One gauge collects for all: a scrape then reads the store once, at one instant.
  new Gauge({
    name: 'holdfast_last_event_seq',
    help: 'Sequence number of the newest event.',
    registers,
    async collect() {
      const now = await ctx.store.read(async (tx) => ({
        sandboxes: (await tx.sandboxes({})).items,
        volumes: (await tx.volumes({})).items,
        open: (await tx.openSteps()).length,
        seq: await tx.lastEventSeq(),
      }))
      this.set(now.seq)
      openSteps.set(now.open)
      sandboxes.reset()
      for (const s of now.sandboxes) sandboxes.inc({ state: s.status.phase })
      volumes.reset()
      for (const v of now.volumes) volumes.inc({ state: v.state })
      for (const e of ctx.engines.all()) engines.set({ engine: e.id }, ctx.engines.health(e.id).ok ? 1 : 0)
      const figures = ctx.controller.stats()
      queue.set({ state: 'queued' }, figures.queued)
      queue.set({ state: 'running' }, figures.running)
      for (const [kind, n] of Object.entries(figures.steps)) steps.set({ kind }, n)
      passes.set(figures.passes)
      failures.set(figures.failures)
      memory.set(process.memoryUsage.rss())
      const used = process.cpuUsage()
      cpu.set((used.user + used.system) / 1e6)
    },
  })
}

/** Times every request by its route's pattern, and answers scrapes. Each app has a registry of its own. */
export function addMetrics(app: App, ctx: Context): Registry {
  const registry = new Registry()
  const registers = [registry]
  const duration = new Histogram({
    name: 'holdfast_http_request_duration_seconds',
    help: 'Until the answer has been sent.',
    labelNames: ['method', 'route', 'status'],
    buckets: BUCKETS,
    registers,
  })
  const errors = new Counter({
    name: 'holdfast_http_errors_total',
    help: 'Answers of 500 and above.',
    labelNames: ['route', 'status'],
    registers,
  })
  addGauges(registry, ctx)
  app.addHook('onResponse', async (request, reply) => {
    const route = request.routeOptions.url ?? 'unknown'
    const status = String(reply.statusCode)
    duration.observe({ method: request.method, route, status }, reply.elapsedTime / 1000)
    if (reply.statusCode >= 500) errors.inc({ route, status })
  })
  return registry
}
