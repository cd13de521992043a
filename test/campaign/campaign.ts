/**
 * `npm run campaign -- --engine docker|local --kills 200 [--clients 3] [--seed N] [--quick]`: concurrent clients work
 * while the server is killed with SIGKILL again and again. Afterwards everything that was acknowledged must hold, and
 * after everything was deleted nothing may be left. Ends with one line of figures; exit code 0 only if all held.
 */
import { parseArgs } from 'node:util'
import { act } from './actor.ts'
import { killRepeatedly } from './killer.ts'
import { createHistory, type History } from './model.ts'
import { createRandom } from './random.ts'
import { startSampler } from './sampler.ts'
import {
  verifyData,
  verifyEngine,
  verifyIdentities,
  verifyNothingStays,
  verifyRetained,
  verifyStates,
  verifyStillness,
} from './verify.ts'
import { hearWitnesses, plantWitnesses } from './witness.ts'
import { openRig, type Rig } from './world.ts'

const KILLS = 200
const QUICK_KILLS = 12

interface Flags {
  readonly engine: 'docker' | 'local'
  readonly kills: number
  readonly clients: number
  readonly seed: number
}

function readFlags(): Flags {
  const { values } = parseArgs({
    options: {
      engine: { type: 'string', default: 'docker' },
      kills: { type: 'string' },
      clients: { type: 'string', default: '3' },
      seed: { type: 'string' },
      quick: { type: 'boolean', default: false },
    },
  })
  if (values.engine !== 'docker' && values.engine !== 'local') throw new Error('--engine is docker or local')
  return {
    engine: values.engine,
    kills: Number(values.kills ?? (values.quick ? QUICK_KILLS : KILLS)),
    clients: Number(values.clients),
    seed: Number(values.seed ?? Math.floor(Math.random() * 2 ** 31)),
  }
}

const say = (line: string): void => void process.stderr.write(`${line}\n`)

async function campaign(flags: Flags, rig: Rig, history: History): Promise<string> {
  const { server, world } = rig
  const random = createRandom(flags.seed)
  await server.start()
  const { installation } = await server.client.info()
  const witnesses = await plantWitnesses(server, world)
  const sampler = startSampler(world, installation, history)

  let done = false
  const actors = Array.from({ length: flags.clients }, (_, n) =>
    act({
      name: `c${n}`,
      server,
      image: world.image,
      history,
      random: random.fork(n + 1),
      done: () => done,
    }).catch((error: unknown) => history.violated(`client ${n} gave up: ${String(error)}`)),
  )
  await killRepeatedly({
    server,
    kills: flags.kills,
    random: random.fork(0),
    history,
    progress: (n) => {
      if (n % 20 === 0 || n === flags.kills)
        say(
          `${n} kills, ${history.counts.get('exec') ?? 0} commands, ${history.sandboxes.size} sandboxes, ${history.violations.length} violations`,
        )
    },
  })
  done = true
  await Promise.all(actors)

  say('faults are over; waiting for what was promised')
  const convergedMs = await verifyStates(server, history)
  await sampler.stop()
  await verifyEngine(world, installation, history)
  await verifyStillness(server, history)
  await verifyIdentities(server, history, new Set(witnesses.map((w) => w.id)))
  const files = await verifyData(server, history)
  await hearWitnesses(server, world, witnesses, history)
  const claims = await verifyRetained(server, world, history)
  await verifyNothingStays(server, world, installation, history)
  await server.stop()
  const counts = [...history.counts]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([what, n]) => `${n} ${what}`)
  return [
    `${flags.kills} kills`,
    ...counts,
    `${history.sandboxes.size} sandboxes`,
    `${files} files compared`,
    `${claims} claims re-mounted`,
    `${sampler.samples} samples`,
    `converged in ${(convergedMs / 1000).toFixed(1)} s`,
  ].join(', ')
}

async function main(): Promise<number> {
  const flags = readFlags()
  say(`campaign on ${flags.engine}: ${flags.kills} kills, ${flags.clients} clients, seed ${flags.seed}`)
  const began = performance.now()
  const history = createHistory()
  const rig = await openRig(flags.engine)
  let figures = ''
  try {
    figures = await campaign(flags, rig, history)
  } catch (error) {
    history.violated(
      `the campaign did not come to its end: ${error instanceof Error ? error.stack : String(error)}`,
    )
  }
  if (history.violations.length > 0)
    say(`${rig.server.log()}\n${history.violations.map((v) => `VIOLATION ${v}`).join('\n')}`)
  await rig.destroy().catch((error: unknown) => history.violated(String(error)))
  const seconds = ((performance.now() - began) / 1000).toFixed(0)
  process.stdout.write(
    `campaign ${flags.engine} seed ${flags.seed}: ${figures}, ${history.violations.length} violations, in ${seconds} s\n`,
  )
  return history.violations.length === 0 ? 0 : 1
}

process.exit(await main())
