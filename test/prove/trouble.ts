import { parentPort, workerData } from 'node:worker_threads'
import { type CallName, type Fault, MUTATIONS, OK } from '../../src/engines/simulated/faults.ts'
import { fail } from '../../src/model/errors.ts'
import type { EngineErrorKind } from '../../src/model/facts.ts'
import { play, type Played } from './play.ts'
import { NO_CRASHES, type Plane } from './plane.ts'
import { type Answered, type Asked, WORKER_MARK } from './pool.ts'
import { scenarioOf } from './scenarios.ts'

/** What goes wrong in one play, as data, so that it can be sent to a worker and played again. */
export type Trouble =
  /** The n-th call of the play (counted from 1) suffers, and so do the next ones, `times` in all. */
  | { readonly kind: 'calls'; readonly at: number; readonly times: number; readonly fault: FaultName }
  /** Every event of the engine. */
  | { readonly kind: 'events'; readonly how: 'drop' | 'double' | 'hold' }
  /** The n-th commit fails, and the next ones, `times` in all: a full disk, a busy database. */
  | { readonly kind: 'commits'; readonly at: number; readonly times: number }
  /** The wall clock jumps at the n-th call, ms. */
  | { readonly kind: 'clock'; readonly at: number; readonly jumpMs: number }

export type FaultName =
  | 'does not answer'
  | 'fails (500)'
  | 'is busy (429)'
  | 'says there is a conflict (409)'
  | 'says there is no such object (404)'
  | 'has no room'
  | 'is done, and the answer lost'
  | 'is done 6 s after its time-out'
  | 'is done 45 s after its time-out'
  | 'hangs'
  | 'is cut off in the middle'
  | 'is a list as it was before'
  | 'is a list that leaves out what is ours'

const before = (error: EngineErrorKind): Fault => ({ kind: 'error-before', error })

/** As engines answer: the words are those of the drivers' contract. */
const FAULTS: Readonly<Record<FaultName, Fault>> = {
  'does not answer': before('unreachable'),
  'fails (500)': before('failed'),
  'is busy (429)': before('timeout'),
  'says there is a conflict (409)': before('conflict'),
  'says there is no such object (404)': before('not-found'),
  'has no room': before('disk-full'),
  'is done, and the answer lost': { kind: 'error-after' },
  'is done 6 s after its time-out': { kind: 'late', afterMs: 6_000 },
  'is done 45 s after its time-out': { kind: 'late', afterMs: 45_000 },
  hangs: { kind: 'hang' },
  'is cut off in the middle': { kind: 'torn' },
  'is a list as it was before': { kind: 'stale-list' },
  'is a list that leaves out what is ours': { kind: 'partial-list', keep: () => false },
}

/** Those that make sense for a call. */
export function faultsOf(call: string): readonly FaultName[] {
  const names = Object.keys(FAULTS) as FaultName[]
  const list = call.startsWith('list')
  const mutation = MUTATIONS.has(call as CallName)
  return names.filter((name) => {
    const { kind, ...rest } = FAULTS[name]
    if (kind === 'stale-list' || kind === 'partial-list') return list
    if (kind === 'torn') return call === 'createInstance'
    if (kind === 'error-after' || kind === 'late') return mutation
    // A pull is given half an hour, which is longer than any play.
    if (kind === 'hang') return call !== 'pullImage'
    // Looks are refused in fewer ways; "not there" from a look is a fact and no fault.
    const error = 'error' in rest ? rest.error : undefined
    return mutation || error === 'unreachable' || error === 'failed'
  })
}

export interface Troubled {
  readonly scenario: string
  readonly trouble: Trouble | null
}

export interface TroubledResult {
  readonly job: Troubled
  /** The calls of the scenario itself, in order. */
  readonly calls: readonly CallName[]
  readonly commits: number
  readonly violations: readonly string[]
}

interface Counted {
  commits: number
}

function prepare(trouble: Trouble | null, calls: CallName[], counted: Counted): (plane: Plane) => void {
  return (plane) => {
    if (trouble?.kind === 'events') plane.event = () => trouble.how
    let commits = 0
    plane.refusal = () => {
      commits++
      counted.commits = commits
      if (trouble?.kind !== 'commits') return null
      if (commits < trouble.at || commits >= trouble.at + trouble.times) return null
      return fail('STORE_FAILED', { detail: 'database or disk is full' })
    }
    plane.fault = (call) => {
      calls.push(call)
      const n = calls.length
      if (trouble?.kind === 'clock' && trouble.at === n) plane.clock.jump(trouble.jumpMs)
      if (trouble?.kind !== 'calls' || n < trouble.at || n >= trouble.at + trouble.times) return OK
      const first = calls[trouble.at - 1] ?? call
      // What only one kind of call can suffer befalls only that one.
      return faultsOf(call).includes(trouble.fault) || call === first ? FAULTS[trouble.fault] : OK
    }
  }
}

const cleanRuns = new Map<string, Promise<Played>>()

/** Plays it, and compares its end with that of the same scenario without trouble. */
export async function suffer(job: Troubled): Promise<TroubledResult> {
  const scenario = scenarioOf(job.scenario)
  const style = { hurry: false, crashes: NO_CRASHES }
  const clean = cleanRuns.get(scenario.name) ?? play(scenario, style)
  cleanRuns.set(scenario.name, clean)
  const calls: CallName[] = []
  const counted: Counted = { commits: 0 }
  const inPlay = { calls: 0, commits: 0 }
  const played = await play(scenario, {
    ...style,
    prepare: prepare(job.trouble, calls, counted),
    over: () => void Object.assign(inPlay, { calls: calls.length, commits: counted.commits }),
  })
  const violations = [...played.violations]
  const { end } = await clean
  if (played.end !== end) violations.push(`it ends as ${played.end} and without trouble as ${end}`)
  const clear = job.trouble === null
  return {
    job,
    calls: clear ? calls.slice(0, inPlay.calls) : [],
    commits: clear ? inPlay.commits : 0,
    violations,
  }
}

// Also imported by tests, which may run on threads of somebody else's.
if (workerData === WORKER_MARK)
  parentPort?.on('message', ({ n, job }: Asked<Troubled>) => {
    suffer(job).then(
      (result) => parentPort?.postMessage({ n, result } satisfies Answered<TroubledResult>),
      (error: unknown) => {
        throw error
      },
    )
  })
