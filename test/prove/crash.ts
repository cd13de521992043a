import { parseArgs } from 'node:util'
import { exploreOne } from './explore.ts'
import { exploreAll, tellFailure } from './explore-runs.ts'
import { type ModelRuns, runModel } from './model.ts'
import { PORTION, runModels, tell } from './model-runs.ts'
import { onAllCores } from './pool.ts'
import { poisoned } from './poison.ts'
import { type Placement, type Result, take } from './placement.ts'
import { SCENARIOS, scenarioOf } from './scenarios.ts'

/**
 * Every crash placement of every scenario, and every pair of the small ones. With a stride every n-th of each kind is
 * taken, beginning with an offset, so that a quick run samples evenly.
 */
export interface Extent {
  readonly stride: number
  readonly pairStride: number
  readonly only: string | null
}

export interface Figures {
  readonly scenarios: number
  readonly points: number
  readonly placements: number
  readonly pairs: number
  readonly failed: readonly Result[]
}

/** What is sent and not answered lands soon, after the next process has begun, or after it has given up waiting. */
const LANDS_MS = [300, 6_000, 45_000] as const
const DOWN_MS = [0, 50_000] as const
/** In pairs: soon enough to meet the next process at work. */
const PAIR_LANDS_MS = 700

const WORKER = new URL('placement.ts', import.meta.url)

type Say = (line: string) => void

export async function crashEverywhere(extent: Extent, say: Say): Promise<Figures> {
  const styles: Placement[] = SCENARIOS.filter((s) => extent.only === null || s.name === extent.only).flatMap(
    (s) =>
      (s.hasty ? [false, true] : [false]).map((hurry) => ({
        scenario: s.name,
        hurry,
        at: [],
        landsAfterMs: 0,
        downMs: 0,
      })),
  )
  const clean = await onAllCores<Placement, Result>(WORKER, styles)
  const failed = clean.filter((r) => r.violations.length > 0)
  const singles = clean.flatMap(placements)
  const taken = singles.filter((_, n) => n % extent.stride === 0)
  say(
    `${clean.length} runs without a crash, ${singles.length} placements, of which ${taken.length} are taken`,
  )
  const first = await onAllCores<Placement, Result>(WORKER, taken, progress(say, taken.length, 'placements'))
  failed.push(...first.filter((r) => r.violations.length > 0))

  const bases = clean.filter((r) => scenarioOf(r.placement.scenario).pairs).flatMap(firstOfPairs)
  // How far a run gets after its first crash tells where the second one can fall.
  const after = await onAllCores<Placement, Result>(WORKER, bases)
  const pairs = after.flatMap((r) => secondOfPairs(r))
  const both = pairs.filter((_, n) => n % extent.pairStride === 0)
  say(`${pairs.length} pairs, of which ${both.length} are taken`)
  const second = await onAllCores<Placement, Result>(WORKER, both, progress(say, both.length, 'pairs'))
  failed.push(...second.filter((r) => r.violations.length > 0))
  return {
    scenarios: clean.length,
    points: clean.reduce((sum, r) => sum + r.points, 0),
    placements: taken.length,
    pairs: both.length,
    failed,
  }
}

/** Each point with each down time; a call that was sent also with each time after which it lands. */
function placements({ placement, points, labels }: Result): Placement[] {
  const all: Placement[] = []
  for (let k = 1; k <= points; k++)
    for (const downMs of DOWN_MS)
      for (const landsAfterMs of labels[k - 1]?.endsWith('sent') === true ? LANDS_MS : [LANDS_MS[0]])
        all.push({ ...placement, at: [k], landsAfterMs, downMs })
  return all
}

function firstOfPairs({ placement, points }: Result): Placement[] {
  return Array.from({ length: points }, (_, k) => ({
    ...placement,
    at: [k + 1],
    landsAfterMs: PAIR_LANDS_MS,
    downMs: 0,
  }))
}

function secondOfPairs({ placement, points }: Result): Placement[] {
  const [k = 0] = placement.at
  return Array.from({ length: points - k }, (_, n) => ({ ...placement, at: [k, k + n + 1] }))
}

function progress(say: Say, all: number, what: string): (count: number) => void {
  const step = Math.max(1, Math.ceil(all / 10))
  return (count) => {
    if (count % step === 0) say(`${count} of ${all} ${what}`)
  }
}

/** How a single play is asked for again. */
export function replay({ placement: p }: Result): string {
  const hurry = p.hurry ? ' --hurry' : ''
  return `npm run crash -- --only '${p.scenario}'${hurry} --at ${p.at.join()} --lands ${p.landsAfterMs} --down ${p.downMs}`
}

const OPTIONS = {
  quick: { type: 'boolean', default: false },
  model: { type: 'boolean', default: false },
  explore: { type: 'boolean', default: false },
  only: { type: 'string' },
  hurry: { type: 'boolean', default: false },
  at: { type: 'string' },
  lands: { type: 'string', default: '300' },
  down: { type: 'string', default: '0' },
  runs: { type: 'string' },
  seed: { type: 'string', default: '1' },
  path: { type: 'string' },
  replay: { type: 'string', default: '' },
} as const

/** What one kind of search found: its figures in words, and each failure with how to see it again. */
interface Found {
  readonly figures: string
  readonly failed: number
}

async function placementsCommand(quick: boolean, only: string | null, say: Say): Promise<Found> {
  const figures = await crashEverywhere({ stride: quick ? 9 : 1, pairStride: quick ? 60 : 1, only }, say)
  for (const result of figures.failed.slice(0, 40)) {
    say(replay(result))
    for (const line of [...result.labels.slice(0, 3), ...result.violations]) say(`    ${line}`)
  }
  const { scenarios, points, placements: taken, pairs } = figures
  return {
    figures: `${scenarios} scenarios, ${points} points, ${taken} placements, ${pairs} pairs`,
    failed: figures.failed.length,
  }
}

/** One play beside a poisoned sandbox for so many model runs: it is played twice. */
const POISON_SHARE = 10

async function modelCommand(seed: number, runs: number, say: Say): Promise<Found> {
  const figures = await runModels(seed, runs, say)
  for (const failure of figures.failed) say(failure)
  const poison = await poisoned({ seed, runs: Math.ceil(runs / POISON_SHARE) })
  if (poison !== '') say(poison)
  const { runs: done, commands, crashes, faults } = figures
  return {
    figures: `${done} model runs of ${commands} commands with ${crashes} crashes and ${faults} faults`,
    failed: figures.failed.length + (poison === '' ? 0 : 1),
  }
}

/** In a quick run only the beginning of each scene is explored. */
const QUICK_STATES = 300

async function exploreCommand(quick: boolean, only: string | null, say: Say): Promise<Found> {
  const all = await exploreAll(only, quick ? QUICK_STATES : Number.POSITIVE_INFINITY, say)
  const failures = all.flatMap((e) => e.failures)
  for (const failure of failures) say(tellFailure(failure))
  const sum = (of: (e: (typeof all)[number]) => number): number => all.reduce((n, e) => n + of(e), 0)
  const part = all.some((e) => e.cut) ? ' (a part of them)' : ''
  return {
    figures: `${sum((e) => e.states)} states explored by ${sum((e) => e.transitions)} transitions${part}`,
    failed: failures.length,
  }
}

async function exploreAt(scene: string, at: string, say: Say): Promise<number> {
  const failure = await exploreOne(scene, at)
  say(tellFailure(failure))
  process.stdout.write(`1 path, ${failure.problems.length} violations\n`)
  return failure.problems.length === 0 ? 0 : 1
}

async function placeOne(placement: Placement, say: Say): Promise<number> {
  const result = await take(placement)
  for (const line of [...result.labels, ...result.violations]) say(line)
  process.stdout.write(`1 placement, ${result.violations.length} violations\n`)
  return result.violations.length === 0 ? 0 : 1
}

async function modelOne(again: ModelRuns, say: Say): Promise<number> {
  const { failure } = await runModel(again)
  if (failure !== null) say(tell(failure))
  process.stdout.write(`1 model run, ${failure?.problems.length ?? 0} violations\n`)
  return failure === null ? 0 : 1
}

export async function crashCommand(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({ args: [...args], options: OPTIONS })
  const { quick, only } = values
  const say: Say = (line) => void process.stderr.write(`${line}\n`)
  const seed = Number(values.seed)
  if (values.explore && only !== undefined && values.at !== undefined) return exploreAt(only, values.at, say)
  if (only !== undefined && values.at !== undefined) {
    const at = values.at.split(',').map(Number)
    const times = { landsAfterMs: Number(values.lands), downMs: Number(values.down) }
    return placeOne({ scenario: only, hurry: values.hurry, at, ...times }, say)
  }
  if (values.path !== undefined)
    return modelOne(
      { seed, runs: Number(values.runs ?? PORTION), path: values.path, replayPath: values.replay },
      say,
    )
  const all = !values.model && !values.explore
  const began = performance.now()
  const found: Found[] = []
  if (all) found.push(await placementsCommand(quick, only ?? null, say))
  if (values.model || (all && only === undefined))
    found.push(await modelCommand(seed, Number(values.runs ?? (quick ? 40 : 400)), say))
  if (values.explore || (all && only === undefined))
    found.push(await exploreCommand(quick, only ?? null, say))
  const failed = found.reduce((sum, f) => sum + f.failed, 0)
  const seconds = Math.round((performance.now() - began) / 1000)
  const figures = found.map((f) => f.figures).join(', ')
  process.stdout.write(`crash: ${figures}, ${failed} violations, in ${seconds} s\n`)
  return failed === 0 ? 0 : 1
}

if (import.meta.main) process.exit(await crashCommand(process.argv.slice(2)))
