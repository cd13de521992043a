/**
 * `node test/campaign/faults.ts [--only name] [--seed N]`: faults of the engine's processes, on Docker daemons of
 * their own, and of what the server stands on. One line per case, and a last one with the count.
 */
import { parseArgs } from 'node:util'
import { daemonHangs } from './faults/daemon-hang.ts'
import { ACTS, killedMidStep } from './faults/daemon-kill.ts'
import { stateDiskFull } from './faults/disk-full.ts'
import { copiedWhilePaused, replacedWhilePaused, twoServers } from './faults/two-servers.ts'
import { createRandom, type Random } from './random.ts'

const HANG_MS = 30_000
/** How long the disk stays full: health probes, ticks and a full list of the engine fall into it. */
const FULL_MS = 35_000

interface Case {
  readonly name: string
  /** Resolves with its figures. */
  readonly run: (random: Random) => Promise<string>
}

const KINDS = ACTS.map((a) => a.kind)

const CASES: readonly Case[] = [
  ...(['dockerd', 'containerd'] as const).flatMap((victim) =>
    [false, true].map((liveRestore) => ({
      name: `kill-${victim}${liveRestore ? '-live-restore' : ''}`,
      run: (random: Random) => killedMidStep({ victim, liveRestore, kinds: KINDS, random }),
    })),
  ),
  { name: 'daemon-hangs', run: () => daemonHangs(HANG_MS) },
  ...(['docker', 'local'] as const).flatMap((engine) => [
    { name: `disk-full-${engine}`, run: () => stateDiskFull(engine, FULL_MS) },
    { name: `two-servers-${engine}`, run: () => twoServers(engine) },
  ]),
  { name: 'copied-while-paused', run: () => copiedWhilePaused() },
  { name: 'replaced-while-paused', run: () => replacedWhilePaused() },
]

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { only: { type: 'string', default: '' }, seed: { type: 'string' } },
  })
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31))
  const cases = CASES.filter((c) => c.name.startsWith(values.only))
  if (cases.length === 0) throw new Error(`--only is one of: ${CASES.map((c) => c.name).join(', ')}`)
  let passed = 0
  for (const [n, c] of cases.entries()) {
    const began = performance.now()
    const seconds = (): string => ((performance.now() - began) / 1000).toFixed(1)
    try {
      const figures = await c.run(createRandom(seed).fork(n))
      passed++
      process.stdout.write(`ok   ${c.name}: ${figures} (${seconds()} s)\n`)
    } catch (error) {
      process.stdout.write(`FAIL ${c.name} (${seconds()} s)\n`)
      process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`)
    }
  }
  process.stdout.write(`faults, seed ${seed}: ${passed} passed, ${cases.length - passed} failed\n`)
  return passed === cases.length ? 0 : 1
}

process.exit(await main())
