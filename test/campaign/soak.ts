/**
 * `npm run soak -- --engine docker|local --minutes 30 [--clients 4] [--seed N] [--quick]`: a random nemesis beside
 * concurrent clients, in rounds. Each round ends with a stillness in which all that was asked and seen is checked.
 * Ends with one line of figures; exit code 0 only if nothing was lost, leaked or violated.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type Proxy, startDockerProxy } from '../support/docker-proxy.ts'
import { DOCKER_SOCKET } from '../support/docker-subject.ts'
import type { TestServer } from '../support/server.ts'
import { plantBeside } from './soak-beside.ts'
import { killOnce } from './killer.ts'
import { createRandom, type Random } from './random.ts'
import { startSampler } from './sampler.ts'
import { type Belongings, client } from './soak-client.ts'
import { openSoakHistory, type SoakHistory } from './soak-history.ts'
import { nemesis } from './soak-nemesis.ts'
import { startObserver } from './soak-observer.ts'
import { finish, stillness } from './soak-still.ts'
import { hearWitnesses, plantWitnesses } from './witness.ts'
import { openRig, type Rig } from './world.ts'

const MINUTES = 30
const QUICK_MINUTES = 2
/** From one stillness to the next, ms. */
const ROUND_MS = 300_000
/** One kill in this many ms is aimed at, so that half an hour with its stillnesses has more than five hundred. */
const KILL_EVERY_MS = 2_900
/** The longest life of the server from when it is ready, and how long that is waited for, ms: on time, and when behind. */
const PACE = {
  onTime: { lifeMs: 2_500, readyMs: 10_000 },
  behind: { lifeMs: 800, readyMs: 2_500 },
} as const
/** Part of the lives that may take their time also when behind: on a slow machine nothing would be done else. */
const FULL_LIFE = 0.25
/** A client waits for its answer through many short lives of the server, ms. */
const INTENT_LIMIT_MS = 600_000

interface Flags {
  readonly engine: 'docker' | 'local'
  readonly minutes: number
  readonly clients: number
  readonly seed: number
}

function readFlags(): Flags {
  const { values } = parseArgs({
    options: {
      engine: { type: 'string', default: 'docker' },
      minutes: { type: 'string' },
      clients: { type: 'string', default: '4' },
      seed: { type: 'string' },
      quick: { type: 'boolean', default: false },
    },
  })
  if (values.engine !== 'docker' && values.engine !== 'local') throw new Error('--engine is docker or local')
  return {
    engine: values.engine,
    minutes: Number(values.minutes ?? (values.quick ? QUICK_MINUTES : MINUTES)),
    clients: Number(values.clients),
    seed: Number(values.seed ?? Math.floor(Math.random() * 2 ** 31)),
  }
}

const say = (line: string): void => void process.stderr.write(`${line}\n`)

/** The server, with its deaths in the history. */
const recorded = (server: TestServer, history: SoakHistory): TestServer => ({
  ...server,
  async kill() {
    await server.kill()
    history.add({ kind: 'death', at: Date.now() })
  },
})

interface Stage {
  readonly flags: Flags
  readonly rig: Rig
  readonly proxy: Proxy | null
  readonly history: SoakHistory
}

async function soak({ flags, rig, proxy, history }: Stage): Promise<void> {
  const { world } = rig
  const server = recorded(rig.server, history)
  const random = createRandom(flags.seed)
  await server.start()
  const { installation } = await server.client.info()
  const witnesses = await plantWitnesses(server, world)
  const sampler = startSampler(world, installation, history, (at, running) =>
    history.add({ kind: 'sample', at, running }),
  )
  const observer = startObserver(server, history)
  const belongings = Array.from({ length: flags.clients }, (): Belongings => ({
    mine: [],
    claims: [],
    sent: null,
  }))
  const untouched = new Set(witnesses.map((w) => w.id))

  const end = Date.now() + flags.minutes * 60_000
  for (let n = 1; Date.now() < end; n++) {
    const roundEnd = Math.min(end, Date.now() + ROUND_MS)
    // A short rest would be all start and stillness.
    const until = end - roundEnd < ROUND_MS / 4 ? end : roundEnd
    const beside = await plantBeside(server, world, untouched)
    try {
      await round(
        { flags, rig: { ...rig, server }, proxy, history },
        random.fork(n),
        installation,
        until,
        belongings,
      )
      await beside.verify(history)
    } finally {
      await beside.remove()
    }
    say(`round ${n}: ${figures(history)}; still now`)
    await stillness(server, world, installation, history, untouched)
    await hearWitnesses(server, world, witnesses, history)
    history.add({ kind: 'still', at: Date.now(), violations: history.violations.length })
    if (history.violations.length > 0) break
  }
  await sampler.stop()
  await observer.stop()
  history.counts.set('looks', observer.looks)
  history.counts.set('events seen', observer.events)
  history.counts.set('samples', sampler.samples)
  await finish(server, world, installation, history)
  await server.stop()
}

/** Clients and nemesis until the given time; then everything is undone and ended, and the server is up. */
async function round(
  { rig, proxy, history }: Stage,
  random: Random,
  installation: string,
  until: number,
  belongings: readonly Belongings[],
): Promise<void> {
  const { server, world } = rig
  const done = (): boolean => Date.now() >= until
  const gaveUp = (who: string) => (error: unknown) =>
    history.violated(`${who} gave up: ${error instanceof Error ? error.stack : String(error)}`)
  const clients = belongings.map((have, i) =>
    client(
      {
        name: `c${i}`,
        server,
        image: world.image,
        history,
        random: random.fork(i + 10),
        faultyEngine: proxy !== null,
        intentLimitMs: INTENT_LIMIT_MS,
        done,
      },
      have,
    ).catch(gaveUp(`client ${i}`)),
  )
  const faults = nemesis({ server, world, installation, proxy, history, random: random.fork(1), done }).catch(
    gaveUp('the nemesis'),
  )
  const killer = random.fork(2)
  const began = Date.now()
  let kills = 0
  try {
    while (!done()) {
      const late = kills < (Date.now() - began) / KILL_EVERY_MS && !killer.chance(FULL_LIFE)
      await killOnce({ server, random: killer, history, ...(late ? PACE.behind : PACE.onTime) })
      kills++
      history.count('kill')
    }
  } catch (error) {
    gaveUp('the killer')(error)
  }
  await Promise.all([...clients, faults])
  if (!server.running()) await server.start()
  await server.ready()
}

const figures = (history: SoakHistory): string =>
  [...history.counts]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([what, n]) => `${n} ${what}`)
    .join(', ')

async function openStage(flags: Flags): Promise<Stage & { readonly close: () => Promise<void> }> {
  const dir = mkdtempSync(join(tmpdir(), 'hf-soak-'))
  const history = openSoakHistory(join(dir, 'history.jsonl'))
  const proxy =
    flags.engine === 'docker' ? await startDockerProxy(join(dir, 'docker.sock'), DOCKER_SOCKET) : null
  const rig = await openRig(
    flags.engine,
    DOCKER_SOCKET,
    proxy === null ? {} : { env: { DOCKER_HOST: proxy.host } },
  )
  return {
    flags,
    rig,
    proxy,
    history,
    async close() {
      await rig.destroy().catch((error: unknown) => history.violated(String(error)))
      await proxy?.close()
      history.close()
      if (history.violations.length === 0) rmSync(dir, { recursive: true })
    },
  }
}

async function main(): Promise<number> {
  const flags = readFlags()
  say(`soak on ${flags.engine}: ${flags.minutes} minutes, ${flags.clients} clients, seed ${flags.seed}`)
  const stage = await openStage(flags)
  const { history, rig } = stage
  try {
    await soak(stage)
  } catch (error) {
    history.violated(
      `the soak did not come to its end: ${error instanceof Error ? error.stack : String(error)}`,
    )
  }
  const bad = history.violations.length
  if (bad > 0) say(`${rig.server.log()}\n${history.violations.map((v) => `VIOLATION ${v}`).join('\n')}`)
  await stage.close()
  say(figures(history))
  const { counts, violations } = history
  if (violations.length > 0) say(`seed ${flags.seed}; the history is in ${history.path}; replay with --seed`)
  const lost = violations.filter((v) => /lost|missing|not listed|is not as/.test(v)).length
  const leaked = violations.filter((v) => /nothing is left|could be removed/.test(v)).length
  process.stdout.write(
    `soak on ${flags.engine}: ${flags.minutes} min, ${counts.get('kill') ?? 0} kills, ${faultsOf(history)} other faults, ${history.sandboxes.size} sandboxes, ${counts.get('exec') ?? 0} commands, ${counts.get('files compared') ?? 0} files compared, seed ${flags.seed}: ${lost} lost, ${leaked} leaked, ${violations.length} violations\n`,
  )
  return violations.length === 0 ? 0 : 1
}

const faultsOf = (history: SoakHistory): number => history.entries.filter((e) => e.kind === 'fault').length

process.exit(await main())
