import type { Engine } from '../../engines/engine.ts'
import type { EngineHealth } from '../../engines/host.ts'
import { EngineError, type InstanceFacts, type Observed } from '../../model/facts.ts'
import { fail } from '../../model/errors.ts'
import { holdCause } from '../../model/hold.ts'
import type { SandboxRecord } from '../../model/records.ts'
import { sandboxKey } from '../../reconcile/controller.ts'
import { auditCounts, auditFindings, auditOk, lasting, type AuditView } from '../audit.ts'
import type { App, Context } from '../context.ts'
import { fromEngine } from '../errors.ts'
import { explain } from '../explain.ts'
import { mustFind } from '../intents/apply.ts'
import { volumesOf } from '../present/sandbox.ts'
import { iso } from '../present/time.ts'
import { errorResponses, idParams } from '../schemas/common.ts'
import { auditWire, explainWire } from '../schemas/operations.ts'
import { abortOnClose } from '../streams.ts'
import { defaultEngine } from './shared.ts'

/** How long a person waits for a live look, milliseconds. */
const LOOK_LIMIT_MS = 3_000
/** How long a whole list may take, milliseconds. */
const LIST_LIMIT_MS = 30_000

/** The monitor may not have noticed yet what this look has. */
function unlessOk(
  health: EngineHealth,
  seen: { readonly error: string; readonly since: number },
): EngineHealth {
  return health.ok ? { ok: false, error: seen.error, since: seen.since } : health
}

/** One live look, which changes nothing. What cannot be seen is unknown, never absent. */
async function lookAt(
  ctx: Context,
  record: SandboxRecord,
  signal: AbortSignal,
): Promise<Observed<InstanceFacts | null>> {
  const health = ctx.engines.health(record.engine)
  const engine = ctx.engines.get(record.engine)
  if (engine === null) {
    return { known: false, error: `the engine ${record.engine} is not configured`, since: health.since }
  }
  if (record.instance === null && health.ok) return { known: true, value: null, at: ctx.clock.now() }
  try {
    const call = { limitMs: LOOK_LIMIT_MS, signal }
    // Without an instance there is nothing to look at but whether the engine answers.
    if (record.instance === null) await engine.info(call)
    const value = record.instance === null ? null : await engine.inspectInstance(record.instance.name, call)
    return { known: true, value, at: ctx.clock.now() }
  } catch (error) {
    if (!(error instanceof EngineError)) throw error
    return { known: false, error: error.message, since: health.ok ? ctx.clock.now() : health.since }
  }
}

async function auditView(ctx: Context, engine: Engine, signal: AbortSignal): Promise<AuditView> {
  const call = { limitMs: LIST_LIMIT_MS, signal }
  let lists: [AuditView['instances'], AuditView['engineVolumes']]
  try {
    lists = await Promise.all([engine.listInstances(call), engine.listVolumes(call)])
  } catch (error) {
    if (!(error instanceof EngineError)) throw error
    const known = fromEngine(error, engine.id, 'be listed')
    throw known.code === 'ENGINE_UNREACHABLE'
      ? known
      : fail('ENGINE_UNREACHABLE', { engine: engine.id, detail: error.message })
  }
  const [instances, engineVolumes] = lists
  return ctx.store.read(async (tx) => ({
    installation: ctx.store.installation,
    now: ctx.clock.now(),
    sandboxes: (await tx.sandboxes({ engine: engine.id })).items,
    volumes: (await tx.volumes({ engine: engine.id })).items,
    open: (await tx.openSteps()).filter((row) => row.engine === engine.id),
    quarantine: await tx.quarantine(engine.id),
    corrupt: await tx.corruptRows(),
    hold: await tx.hold(),
    instances,
    engineVolumes,
  }))
}

/** Why things are as they are, and whether anything leaked. */
export function explainRoutes(app: App, ctx: Context): void {
  app.get(
    '/sandboxes/:id/explain',
    {
      schema: {
        tags: ['sandboxes'],
        summary: 'What is wanted, what is, why they differ, and what happens next',
        params: idParams,
        response: { 200: explainWire, ...errorResponses },
      },
    },
    async (request) => {
      const { id } = request.params
      const [record, volumes, open, hold] = await ctx.store.read(async (tx) => {
        const row = await mustFind(tx, id)
        return [row, await volumesOf(tx, [row]), await tx.openSteps(sandboxKey(id)), await tx.hold()] as const
      })
      const observed = await lookAt(ctx, record, abortOnClose(request, ctx))
      // The look just taken is newer than what the health monitor remembers.
      const health = observed.known
        ? { ok: true, error: null, since: observed.at }
        : unlessOk(ctx.engines.health(record.engine), observed)
      return explain({ record, volumes: [...volumes.values()], open, health, observed, hold })
    },
  )

  app.get(
    '/audit',
    {
      schema: {
        tags: ['operations'],
        summary: 'Engine objects against rows, both ways',
        response: { 200: auditWire, ...errorResponses },
      },
    },
    async (request) => {
      const engine = defaultEngine(ctx)
      const signal = abortOnClose(request, ctx)
      let view = await auditView(ctx, engine, signal)
      let findings = auditFindings(view)
      if (findings.length > 0) {
        view = await auditView(ctx, engine, signal)
        findings = lasting(findings, auditFindings(view))
      }
      return {
        engine: engine.id,
        checkedAt: iso(view.now),
        ok: auditOk(findings),
        counts: auditCounts(view),
        held: view.hold === null ? null : holdCause(view.hold),
        findings: [...findings],
      }
    },
  )
}
