import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'

/** What a worker is asked, and answers with the same number. */
export interface Asked<T> {
  readonly n: number
  readonly job: T
}
export interface Answered<R> {
  readonly n: number
  readonly result: R
}

/** A job that is not done within this hangs, and its process with it: virtual time needs no real time, ms. */
const JOB_LIMIT_MS = 120_000

/** Does every job on as many threads as there are cores; results come in the order of their jobs. */
export async function onAllCores<T, R>(
  module: URL,
  jobs: readonly T[],
  done: (count: number) => void = () => undefined,
  limitMs: number = JOB_LIMIT_MS,
): Promise<R[]> {
  const results: R[] = []
  let next = 0
  let count = 0
  const one = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const worker = new Worker(module)
      let limit: NodeJS.Timeout | undefined
      const give = (): void => {
        clearTimeout(limit)
        const n = next++
        const job = jobs[n]
        if (n >= jobs.length || job === undefined) {
          worker.terminate().then(() => resolve(), reject)
          return
        }
        limit = setTimeout(() => {
          reject(new Error(`not done within ${limitMs} ms: ${JSON.stringify(job)}`))
          void worker.terminate()
        }, limitMs)
        worker.postMessage({ n, job } satisfies Asked<T>)
      }
      worker.on('message', ({ n, result }: Answered<R>) => {
        results[n] = result
        done(++count)
        give()
      })
      worker.on('error', reject)
      give()
    })
  await Promise.all(Array.from({ length: Math.min(availableParallelism(), jobs.length) }, one))
  return results
}
