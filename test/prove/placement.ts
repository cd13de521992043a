import { parentPort, workerData } from 'node:worker_threads'
import { type Answered, type Asked, WORKER_MARK } from './pool.ts'
import { play, type Played } from './play.ts'
import { NO_CRASHES } from './plane.ts'
import { type Scenario, scenarioOf } from './scenarios.ts'

/** One play: a scenario, how it is played, and where the process dies. Enough to play it again. */
export interface Placement {
  readonly scenario: string
  readonly hurry: boolean
  readonly at: readonly number[]
  readonly landsAfterMs: number
  readonly downMs: number
}

export interface Result {
  readonly placement: Placement
  readonly points: number
  readonly labels: readonly string[]
  readonly violations: readonly string[]
}

/**
 * Changes that crashes explain: of each kind one more for each crash, and for volumes two more for each volume there
 * is. A create that is cut off leaves a half-made volume, which is made anew under another name and removed; and when
 * that create lands after all, the engine makes the old one again, silently.
 */
function extras(clean: Played, played: Played, crashes: number): string[] {
  const problems: string[] = []
  for (const [kind, times] of played.effects) {
    const usual = clean.effects.get(kind) ?? 0
    const each = kind.endsWith('Volume') ? 2 * played.volumes : 1
    if (times > usual + crashes * each) problems.push(`${times} times ${kind}, and ${usual} without a crash`)
  }
  return problems
}

const cleanRuns = new Map<string, Promise<Played>>()

function cleanRun(scenario: Scenario, hurry: boolean): Promise<Played> {
  const key = `${scenario.name}/${hurry}`
  const found = cleanRuns.get(key)
  if (found !== undefined) return found
  const made = play(scenario, { hurry, crashes: NO_CRASHES })
  cleanRuns.set(key, made)
  return made
}

/** Plays it, and compares it with the same scenario without a crash. */
export async function take(placement: Placement): Promise<Result> {
  const scenario = scenarioOf(placement.scenario)
  const { hurry, at, landsAfterMs, downMs } = placement
  const clean = await cleanRun(scenario, hurry)
  const played =
    at.length === 0 ? clean : await play(scenario, { hurry, crashes: { at, landsAfterMs, downMs } })
  const violations = [...played.violations]
  if (played.crashed.length !== at.length)
    violations.push(`${at.length} crashes were placed, and ${played.crashed.length} came`)
  if (played.end !== clean.end)
    violations.push(`it ends as ${played.end} and without a crash as ${clean.end}`)
  if (!hurry) violations.push(...extras(clean, played, at.length))
  return {
    placement,
    points: played.points,
    labels: at.length === 0 ? played.labels : played.crashed,
    violations,
  }
}

// Also imported by tests, which may run on threads of somebody else's.
if (workerData === WORKER_MARK)
  parentPort?.on('message', ({ n, job }: Asked<Placement>) => {
    take(job).then(
      (result) => parentPort?.postMessage({ n, result } satisfies Answered<Result>),
      (error: unknown) => {
        throw error
      },
    )
  })
