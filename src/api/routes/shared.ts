import type { Engine } from '../../engines/engine.ts'
import { fail } from '../../model/errors.ts'
import type { ApiDeps } from '../deps.ts'

/** The engine that new things are made on. */
export function defaultEngine(ctx: Pick<ApiDeps, 'engines'>): Engine {
  const engine = ctx.engines.get(ctx.engines.defaultId)
  if (engine === null)
    throw fail('ENGINE_UNREACHABLE', { engine: ctx.engines.defaultId, detail: 'it is not configured' })
  return engine
}

/** The engine of an existing row. */
export function engineOf(ctx: Pick<ApiDeps, 'engines'>, id: string): Engine {
  const engine = ctx.engines.get(id)
  if (engine === null) throw fail('ENGINE_UNREACHABLE', { engine: id, detail: 'it is not configured' })
  return engine
}
