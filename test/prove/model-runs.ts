import { parentPort } from 'node:worker_threads'
import { type ModelReport, type ModelRuns, runModel } from './model.ts'
import { type Answered, type Asked, onAllCores } from './pool.ts'

/** Model runs on all cores, in portions with seeds of their own. */

const WORKER = new URL(import.meta.url)
/** Small enough that a portion is far from the limit of a job, also on a slow machine. */
export const PORTION = 10

export interface ModelFigures {
  readonly runs: number
  readonly commands: number
  readonly crashes: number
  readonly faults: number
  readonly failed: readonly string[]
}

export async function runModels(
  seed: number,
  runs: number,
  say: (line: string) => void,
): Promise<ModelFigures> {
  const jobs: ModelRuns[] = []
  for (let from = 0; from < runs; from += PORTION)
    jobs.push({ seed: seed + jobs.length, runs: Math.min(PORTION, runs - from) })
  const reports = await onAllCores<ModelRuns, ModelReport>(WORKER, jobs, (count) => {
    if (count % Math.max(1, Math.ceil(jobs.length / 5)) === 0) say(`${count * PORTION} of ${runs} model runs`)
  })
  const sum = (of: (report: ModelReport) => number): number => reports.reduce((all, r) => all + of(r), 0)
  return {
    runs: sum((r) => r.runs),
    commands: sum((r) => r.commands),
    crashes: sum((r) => r.crashes),
    faults: sum((r) => r.faults),
    failed: reports.flatMap((r) => (r.failure === null ? [] : [tell(r.failure)])),
  }
}

/** A failure as a person needs it: how to see it again, what was done, what was wrong. */
export function tell({ again, commands, problems }: NonNullable<ModelReport['failure']>): string {
  return [again, ...commands.map((c) => `    ${c}`), ...problems.map((p) => `  ! ${p}`)].join('\n')
}

parentPort?.on('message', ({ n, job }: Asked<ModelRuns>) => {
  runModel(job).then(
    (result) => parentPort?.postMessage({ n, result } satisfies Answered<ModelReport>),
    (error: unknown) => {
      throw error
    },
  )
})
