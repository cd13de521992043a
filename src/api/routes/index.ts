import type { App, Context } from '../context.ts'
import { insideRoutes } from './inside.ts'
import { operationsRoutes } from './operations.ts'
import { openRoutes } from './open.ts'
import { sandboxActionRoutes } from './actions.ts'
import { sandboxRoutes } from './sandboxes.ts'
import { volumeRoutes } from './volumes.ts'

function keyed(app: App, ctx: Context): void {
  sandboxRoutes(app, ctx)
  sandboxActionRoutes(app, ctx)
  volumeRoutes(app, ctx)
  insideRoutes(app, ctx)
  operationsRoutes(app, ctx)
}

/** Everything is served under /v1, as the SDKs ask for it, and without it; the document shows the first only. */
export function registerRoutes(app: App, ctx: Context): void {
  void app.register(async (root) => openRoutes(root.withTypeProvider(), ctx))
  void app.register(async (v1) => keyed(v1.withTypeProvider(), ctx), { prefix: '/v1' })
  void app.register(async (bare) => {
    bare.addHook('onRoute', (route) => {
      route.schema = { ...route.schema, hide: true }
    })
    keyed(bare.withTypeProvider(), ctx)
  })
}
