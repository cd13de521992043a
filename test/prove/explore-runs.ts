import { parentPort } from 'node:worker_threads'
import { explore, type Explored, type Failure } from './explore.ts'
import { SCENES } from './explore/scenes.ts'
import { type Answered, type Asked, onAllCores } from './pool.ts'

/** The exploration of all scenes, each on a core of its own. */

const WORKER = new URL(import.meta.url)
/** A whole scene takes minutes, ms. */
const SCENE_LIMIT_MS = 3 * 3_600_000

interface Job {
  readonly scene: string
  readonly most: number
}

export async function exploreAll(
  only: string | null,
  most: number,
  say: (line: string) => void,
): Promise<readonly Explored[]> {
  const jobs = SCENES.filter((s) => only === null || s.name === only).map((s) => ({ scene: s.name, most }))
  const all = await onAllCores<Job, Explored>(WORKER, jobs, () => undefined, SCENE_LIMIT_MS)
  for (const { scene, states, transitions, ends, cut } of all)
    say(
      `${scene}: ${states} states, ${transitions} transitions, ${ends} ends${cut ? ', not all of them' : ''}`,
    )
  return all
}

/** A failure as a person needs it. */
export function tellFailure({ again, choices, problems }: Failure): string {
  return [again, ...choices.map((c) => `    ${c}`), ...problems.map((p) => `  ! ${p}`)].join('\n')
}

parentPort?.on('message', ({ n, job }: Asked<Job>) => {
  explore(job.scene, job.most, (line) => void process.stderr.write(`${line}\n`)).then(
    (result) => parentPort?.postMessage({ n, result } satisfies Answered<Explored>),
    (error: unknown) => {
      throw error
    },
  )
})
