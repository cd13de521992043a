import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'

export interface Figure {
  readonly value: number
  readonly unit: 'ms' | 'MB' | 'percent'
  /** The same without Holdfast, measured in the same run; null where there is no such thing. */
  readonly raw: number | null
  /** How many times the raw figure it is; null without one. */
  readonly ratio: number | null
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const [below = Number.NaN, above = Number.NaN] = [sorted[middle - 1 + (sorted.length % 2)], sorted[middle]]
  return (below + above) / 2
}

const round = (n: number): number => Number(n.toPrecision(4))

export function figure(value: number, unit: Figure['unit'], raw: number | null = null): Figure {
  return {
    value: round(value),
    unit,
    raw: raw === null ? null : round(raw),
    ratio: raw === null ? null : round(value / raw),
  }
}

/** How long `act` takes, in milliseconds. */
export async function timed(act: () => Promise<unknown>): Promise<number> {
  const began = performance.now()
  await act()
  return performance.now() - began
}

/** After each block: what the engine still does for the last one must not weigh on the next, ms. */
const PAUSE_MS = 250

/**
 * Medians of both, taken in turns and each as often first as second, so that what else the machine does weighs on both
 * alike. Each function measures itself: what it prepares and clears away does not count. `block` is how often one is
 * taken in a row: a few for what a client does in rows, as commands are.
 */
export async function interleaved(
  rounds: number,
  ours: () => Promise<number>,
  raw: () => Promise<number>,
  block: number = 1,
): Promise<{ readonly ours: number; readonly raw: number }> {
  const figures = { ours: [] as number[], raw: [] as number[] }
  for (let round = 0; round < rounds; round++)
    for (const who of round % 2 === 0 ? (['ours', 'raw'] as const) : (['raw', 'ours'] as const)) {
      for (let n = 0; n < block; n++) figures[who].push(await (who === 'ours' ? ours() : raw()))
      await delay(PAUSE_MS)
    }
  return { ours: median(figures.ours), raw: median(figures.raw) }
}

/** Wall time of a whole process, milliseconds. Rejects when it fails. */
export async function processMs(
  args: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
): Promise<number> {
  return timed(
    () =>
      new Promise<void>((done, reject) => {
        const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'ignore', 'inherit'] })
        child.on('error', reject)
        child.on('exit', (code) =>
          code === 0 ? done() : reject(new Error(`${args.join(' ')} ended with ${code}`)),
        )
      }),
  )
}

/** Resident memory of a process, MB (10^6 bytes). */
export function residentMb(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return (Number(kib) * 1024) / 1e6
}

/** What a Node process that does nothing takes, MB. */
export async function bareNodeMb(): Promise<number> {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' })
  try {
    await delay(1_000)
    return residentMb(child.pid ?? 0)
  } finally {
    child.kill('SIGKILL')
  }
}
