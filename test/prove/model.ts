import fc from 'fast-check'
import { createPlane, type Plane } from './plane.ts'
import { standBy } from './play.ts'
import type { Command } from './model/command.ts'
import { end, IMAGE } from './model/end.ts'
import { nature } from './model/nature.ts'
import { creates, requests } from './model/requests.ts'
import { createModel, type Figures, type Real } from './model/state.ts'

/**
 * Random requests, faults, crashes and other people's hands on one control plane. The model holds only what was
 * acknowledged; in the end that is what there has to be.
 */

export interface ModelRuns {
  readonly seed: number
  readonly runs: number
  /** Of a failure that is to be seen again. */
  readonly path?: string
  readonly replayPath?: string
}

export interface ModelReport extends Figures {
  readonly runs: number
  readonly failure: ModelFailure | null
}

export interface ModelFailure {
  readonly again: string
  readonly commands: readonly string[]
  readonly problems: readonly string[]
}

/** Commands in one run, at most. */
const MOST = 35
/** Looking for a smaller case ends after this, ms. */
const SHRINK_LIMIT_MS = 100_000

class Violated extends Error {
  override readonly name: string = 'Violated'
  readonly problems: readonly string[]
  constructor(problems: readonly string[]) {
    super(problems.join('\n'))
    this.problems = problems
  }
}

interface Circumstances {
  readonly seed: number
  /** Virtual time that a call takes to reach the engine, ms. */
  readonly latencyMs: number
}

const circumstances: fc.Arbitrary<Circumstances> = fc.record({
  seed: fc.nat({ max: 1_000_000 }),
  latencyMs: fc.constantFrom(0, 7, 40, 400),
})

function property(
  figures: Figures,
  replayPath: string | undefined,
): fc.IAsyncProperty<[Circumstances, readonly Command[], Iterable<Command>]> {
  const commands = fc.commands([...requests, ...nature], {
    maxCommands: MOST,
    size: 'max',
    ...(replayPath === undefined ? {} : { replayPath }),
  })
  // Without a sandbox hardly anything else can happen.
  const first = fc.array(creates, { minLength: 1, maxLength: 2 })
  return fc.asyncProperty(circumstances, first, commands, async (given, begin, sequence) => {
    const problems = await playModel(given, [begin, sequence], figures)
    if (problems.length > 0) throw new Violated(problems)
  })
}

/** One run, from an empty installation to its end. */
export async function playModel(
  { seed, latencyMs }: Circumstances,
  parts: readonly Iterable<Command>[],
  figures: Figures,
  watch: (plane: Plane) => void = () => undefined,
): Promise<readonly string[]> {
  const plane = createPlane({
    seed: `model-${seed}`,
    latencyMs,
    images: { img: IMAGE },
    registry: { img: IMAGE },
  })
  watch(plane)
  standBy(plane)
  const model = createModel(plane)
  const real: Real = { plane, removed: new Set(), squatters: new Set(), count: 0, figures }
  await plane.alive()
  for (const commands of parts) await fc.asyncModelRun(() => ({ model, real }), commands)
  const problems = await end(model, real)
  figures.crashes += plane.crashed().length
  return problems
}

/** Plays many; of a failure the smallest form that was found, and how to see it again. */
export async function runModel({ seed, runs, path, replayPath }: ModelRuns): Promise<ModelReport> {
  const figures: Figures = { commands: 0, crashes: 0, faults: 0, acknowledged: 0 }
  const result = await fc.check(property(figures, replayPath), {
    seed,
    numRuns: runs,
    interruptAfterTimeLimit: SHRINK_LIMIT_MS,
    ...(path === undefined ? {} : { path, endOnFailure: true }),
  })
  return { ...figures, runs: result.numRuns, failure: result.failed ? failure(result) : null }
}

function failure(
  result: fc.RunDetails<[Circumstances, readonly Command[], Iterable<Command>]>,
): ModelFailure {
  const [given, begin, commands] = result.counterexample ?? []
  const text = commands === undefined ? '' : fc.stringify(commands)
  const replayPath = /replayPath="([^"]*)"/.exec(text)?.[1] ?? ''
  const error = result.errorInstance
  return {
    again: `npm run crash -- --model --seed ${result.seed} --path ${result.counterexamplePath} --replay '${replayPath}'`,
    commands: [
      JSON.stringify(given),
      ...(begin ?? []).map(String),
      ...text.replace(/\/\*.*\*\//, '').split(/(?<=\)),/),
    ],
    problems:
      error instanceof Violated
        ? error.problems
        : [error instanceof Error ? (error.stack ?? error.message) : String(error)],
  }
}
