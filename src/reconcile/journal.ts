import type { Call, Engine } from '../engines/engine.ts'
import { EngineError } from '../model/facts.ts'
import type { JournalRow, SandboxRecord, VolumeRecord } from '../model/records.ts'
import type { StepFailure } from '../plan/failure.ts'
import { stepLimitMs } from '../plan/limits.ts'
import type { WriteTx } from '../store/store.ts'
import type { Context } from './context.ts'
import { executeStep, type StepOutcome } from './steps.ts'

export type StepResult =
  | { readonly ok: true; readonly outcome: StepOutcome }
  | { readonly ok: false; readonly failure: StepFailure }

export interface TakeInput {
  readonly engine: Engine
  readonly sandbox: SandboxRecord | null
  readonly volumes: readonly VolumeRecord[]
  /** Until then an earlier attempt of the same row can still land; null when there was none. */
  readonly earlierUntil: number | null
  readonly signal?: AbortSignal
  readonly progress?: (line: string) => void
  /** Written in the same transaction as the row's outcome. */
  readonly record: (tx: WriteTx, result: StepResult) => Promise<void>
}

/**
 * Takes a step whose intent is already committed, and commits its outcome. A definite failure closes the row; a doubt
 * (time-out, lost reply) leaves it open, and the next pass decides from what it sees.
 */
export async function takeStep(ctx: Context, row: JournalRow, input: TakeInput): Promise<StepResult> {
  ctx.hooks.point?.(row.step.kind, 'after-intent')
  const result = await attempt(ctx, row, input)
  ctx.hooks.point?.(row.step.kind, 'after-effect')
  ctx.figures.steps.set(row.step.kind, (ctx.figures.steps.get(row.step.kind) ?? 0) + 1)
  if (!result.ok) ctx.figures.failures++
  await ctx.store.write(true, async (tx) => {
    const now = ctx.clock.now()
    // An earlier attempt of the same row may still land: the refusal of this one does not end that doubt.
    const inDoubt = input.earlierUntil !== null && input.earlierUntil > now && row.step.kind !== 'pull-image'
    const refused = !result.ok && result.failure.effect === 'none' && !inDoubt
    if (result.ok) await tx.closeStep(row.id, 'done', now, result.outcome.text)
    else if (refused) await tx.closeStep(row.id, 'failed', now, result.failure.message)
    await input.record(tx, result)
  })
  ctx.hooks.point?.(row.step.kind, 'after-outcome')
  ctx.hooks.committed?.()
  return result
}

async function attempt(ctx: Context, row: JournalRow, input: TakeInput): Promise<StepResult> {
  const call: Call = {
    limitMs: stepLimitMs(row.step),
    fence: () => ctx.store.assertFence(),
    ...(input.signal === undefined ? {} : { signal: input.signal }),
  }
  try {
    ctx.store.assertFence()
    const outcome = await executeStep(
      row.step,
      {
        engine: input.engine,
        installation: ctx.store.installation,
        endpoint: ctx.endpoint,
        sandbox: input.sandbox,
        volumes: input.volumes,
        progress: input.progress ?? (() => undefined),
      },
      call,
    )
    return { ok: true, outcome }
  } catch (error) {
    const failure = toFailure(error)
    if (failure.kind === 'unreachable' || failure.kind === 'timeout') ctx.suspect(row.engine, failure.message)
    ctx.log.warn(
      {
        key: row.key,
        step: row.step.kind,
        attempt: row.attempts,
        kind: failure.kind,
        error: failure.message,
      },
      'step failed',
    )
    return { ok: false, failure }
  }
}

/** Anything that is not an `EngineError` is a bug or a lost store: its effect counts as unknown. */
function toFailure(error: unknown): StepFailure {
  if (error instanceof EngineError) return { kind: error.kind, effect: error.effect, message: error.message }
  const message = error instanceof Error ? error.message : String(error)
  return { kind: 'failed', effect: 'unknown', message }
}
