import type { Metrics } from '../metrics.ts'
import type { App, Context } from '../context.ts'
import { sandboxActionRoutes } from './actions.ts'
import { eventRoutes } from './events.ts'
import { explainRoutes } from './explain.ts'
import { insideRoutes } from './inside.ts'
import { openRoutes } from './open.ts'
import { operationsRoutes } from './operations.ts'
import { recoveryRoutes } from './recovery.ts'
import { portRoutes } from './ports.ts'
import { sandboxRoutes } from './sandboxes.ts'
import { volumeRoutes } from './volumes.ts'

function keyed(app: App, ctx: Context, metrics: Metrics): void {
  sandboxRoutes(app, ctx)
  sandboxActionRoutes(app, ctx)
  explainRoutes(app, ctx)
  insideRoutes(app, ctx)
  portRoutes(app, ctx)
  volumeRoutes(app, ctx)
  eventRoutes(app, ctx)
  operationsRoutes(app, ctx, metrics)
  recoveryRoutes(app, ctx)
}

/** Everything is served under /v1, as the SDKs ask for it, and without it; the document shows the first only. */
export function registerRoutes(app: App, ctx: Context, metrics: Metrics): void {
  void app.register(async (root) => openRoutes(root.withTypeProvider(), ctx))
  void app.register(async (v1) => keyed(v1.withTypeProvider(), ctx, metrics), { prefix: '/v1' })
  void app.register(async (bare) => {
    bare.addHook('onRoute', (route) => {
      route.schema = { ...route.schema, hide: true }
    })
    keyed(bare.withTypeProvider(), ctx, metrics)
  })
}
