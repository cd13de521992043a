import { sameRun, type InstanceFacts } from '../model/facts.ts'
import type { ExitClass, ExitRecord, InstanceRef, RestartPolicy } from '../model/records.ts'

/**
 * How long an exit stays provisional, ms: an engine that is stopping in order still answers while it ends its
 * containers, so the same run must answer again after this.
 */
export const EXIT_SETTLE_MS = 1_000

export type ExitVerdict =
  /** This exit was dealt with before: nothing more follows from it. */
  | { readonly kind: 'handled'; readonly exit: ExitRecord }
  | { readonly kind: 'provisional'; readonly exit: ExitRecord; readonly certainAt: number }
  | { readonly kind: 'need-cause' }
  | { readonly kind: 'new'; readonly exit: ExitRecord }

/**
 * Classifies an exit by circumstance, never by its code (DESIGN §4): an exit under another engine run or boot than
 * the one it was last seen running in was the engine's or the host's. Under the same run it was the workload's, unless
 * memory ran out, somebody else stopped it through the engine, or we did: `asked` when a stop of ours is open,
 * `stopInDoubt` when one that was given up can still land, so that a stop through the engine may be that one.
 */
export function classifyExit(
  ref: InstanceRef,
  facts: InstanceFacts,
  last: ExitRecord | null,
  asked: boolean,
  cause: 'external' | 'own' | null | undefined,
  now: number,
  stopInDoubt: boolean = false,
): ExitVerdict {
  const startedAt = facts.startedAt ?? 0
  const known = last !== null && last.instance === ref.number && last.startedAt === startedAt ? last : null
  if (known !== null && known.class !== 'provisional') return { kind: 'handled', exit: known }
  // A clock that stepped back must not make a provisional exit wait for the time it once had.
  const seenAt = known === null || known.seenAt > now ? now : known.seenAt
  const exit = (cls: ExitClass): ExitRecord => ({
    instance: ref.number,
    startedAt,
    finishedAt: facts.finishedAt,
    code: facts.exitCode,
    class: cls,
    seenAt,
  })
  if (asked) return { kind: 'new', exit: exit('asked') }
  if (!sameRun(ref.run, facts.run)) return { kind: 'new', exit: exit('engine') }
  if (known === null || now - seenAt < EXIT_SETTLE_MS) {
    return { kind: 'provisional', exit: exit('provisional'), certainAt: seenAt + EXIT_SETTLE_MS }
  }
  // Asking for the cause is also what proves that the engine stays, so it comes before every conclusion.
  if (cause === undefined) return { kind: 'need-cause' }
  if (facts.oomKilled) return { kind: 'new', exit: exit('oom') }
  if (cause === 'own') return { kind: 'new', exit: exit('workload') }
  if (stopInDoubt) return { kind: 'new', exit: exit('asked') }
  return { kind: 'new', exit: exit(cause === 'external' ? 'external' : 'workload') }
}

/** Whether the spec's restart policy starts it again; only ever asked for the workload's own exits and those of others. */
export function restarts(policy: RestartPolicy, exit: ExitRecord, restartsSoFar: number): boolean {
  switch (policy.kind) {
    case 'no':
      return false
    case 'always':
      return true
    case 'on-failure':
      return exit.code !== 0 && (policy.max === null || restartsSoFar < policy.max)
  }
}

/** True when what follows from this end of the instance was decided before. */
export function isDealtWith(ref: InstanceRef, facts: InstanceFacts, last: ExitRecord | null): boolean {
  if (last === null || last.class === 'provisional') return false
  return last.instance === ref.number && last.startedAt === (facts.startedAt ?? 0)
}

/** The exit of an instance that we ended because it was asked for. */
export function askedExit(ref: InstanceRef, facts: InstanceFacts, at: number): ExitRecord {
  return {
    instance: ref.number,
    startedAt: facts.startedAt ?? 0,
    finishedAt: facts.finishedAt,
    code: facts.exitCode,
    class: 'asked',
    seenAt: at,
  }
}
