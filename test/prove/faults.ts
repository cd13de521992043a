import { parseArgs } from 'node:util'
import { onAllCores } from './pool.ts'
import { SCENARIOS } from './scenarios.ts'
import {
  faultsOf,
  type FaultName,
  suffer,
  type Trouble,
  type Troubled,
  type TroubledResult,
} from './trouble.ts'

/**
 * Every fault at every call of every scenario, alone and in a row; events that are lost, doubled or late; and clocks that
 * jump. The end has to be that of the undisturbed run, and the monitor's promises hold at every instant.
 */
export interface FaultFigures {
  readonly scenarios: number
  readonly calls: number
  readonly plays: number
  readonly failed: readonly TroubledResult[]
}

const WORKER = new URL('trouble.ts', import.meta.url)
/** A fault alone, and one that lasts for a while. */
const TIMES = [1, 6] as const
const HOUR_MS = 3_600_000
const JUMPS_MS = [HOUR_MS, -HOUR_MS] as const
const EVENTS = ['drop', 'double', 'hold'] as const

type Say = (line: string) => void

export async function sufferEverywhere(stride: number, only: string | null, say: Say): Promise<FaultFigures> {
  const names = SCENARIOS.map((s) => s.name).filter((name) => only === null || name === only)
  const clean = await onAllCores<Troubled, TroubledResult>(
    WORKER,
    names.map((scenario) => ({ scenario, trouble: null })),
  )
  const all = clean.flatMap((run) => troubles(run).map((trouble) => ({ ...run.job, trouble })))
  const jobs = all.filter((_, n) => n % stride === 0)
  say(`${all.length} faults, of which ${jobs.length} are taken`)
  const step = Math.ceil(jobs.length / 10)
  const results = await onAllCores<Troubled, TroubledResult>(WORKER, jobs, (n) => {
    if (n % step === 0) say(`${n} of ${jobs.length} faults`)
  })
  return {
    scenarios: clean.length,
    calls: clean.reduce((sum, run) => sum + run.calls.length, 0),
    plays: jobs.length,
    failed: [...clean, ...results].filter((r) => r.violations.length > 0),
  }
}

function troubles({ calls, commits, job }: TroubledResult): Trouble[] {
  // A time that is over is over: where expiry is what is looked at, the clock is the subject and not the trouble.
  const expires = /expiry|renewal/.test(job.scenario)
  const jumps = expires ? [] : calls.flatMap((_, n) => JUMPS_MS.map((jumpMs) => jump(n + 1, jumpMs)))
  return [
    ...EVENTS.map((how) => ({ kind: 'events', how }) as const),
    ...calls.flatMap((call, n) =>
      faultsOf(call).flatMap((fault) => TIMES.map((times) => fail(n + 1, times, fault))),
    ),
    ...Array.from({ length: commits }, (_, n) =>
      TIMES.map((times) => ({ kind: 'commits', at: n + 1, times }) as const),
    ).flat(),
    ...jumps,
  ]
}

const jump = (at: number, jumpMs: number): Trouble => ({ kind: 'clock', at, jumpMs })
const fail = (at: number, times: number, fault: FaultName): Trouble => ({ kind: 'calls', at, times, fault })

export async function faultsCommand(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      trouble: { type: 'string' },
    },
  })
  const say: Say = (line) => void process.stderr.write(`${line}\n`)
  if (values.only !== undefined && values.trouble !== undefined) {
    const { violations } = await suffer({
      scenario: values.only,
      trouble: JSON.parse(values.trouble) as Trouble,
    })
    for (const line of violations) say(line)
    process.stdout.write(`1 fault, ${violations.length} violations\n`)
    return violations.length === 0 ? 0 : 1
  }
  const began = performance.now()
  const figures = await sufferEverywhere(values.quick ? 97 : 1, values.only ?? null, say)
  for (const { job, violations } of figures.failed.slice(0, 40)) {
    say(`npm run faults -- --only '${job.scenario}' --trouble '${JSON.stringify(job.trouble)}'`)
    for (const line of violations) say(`    ${line}`)
  }
  const seconds = Math.round((performance.now() - began) / 1000)
  process.stdout.write(
    `faults: ${figures.scenarios} scenarios, ${figures.calls} calls, ${figures.plays} faults, ${figures.failed.length} violations, in ${seconds} s\n`,
  )
  return figures.failed.length === 0 ? 0 : 1
}

if (import.meta.main) process.exit(await faultsCommand(process.argv.slice(2)))
