import fc from 'fast-check'
import { applyTo } from '../../src/api/intents/apply.ts'
import { commitIntent } from '../../src/api/intents/commit.ts'
import * as life from '../../src/api/intents/lifecycle.ts'
import { update } from '../../src/api/intents/update.ts'
import type { CreateInstance, CreateVolume } from '../../src/engines/engine.ts'
import { type Fault, OK } from '../../src/engines/simulated/faults.ts'
import { HoldfastError } from '../../src/model/errors.ts'
import { createPlane, type Plane } from './plane.ts'
import { answered, createUser, depsOf } from './user.ts'

/** Every call about one of the sandboxes suffers: others are none the later for it, to the millisecond. */

const POISONS: Readonly<Record<string, Fault>> = {
  hang: { kind: 'hang' },
  'fails before': { kind: 'error-before', error: 'failed' },
  'fails after': { kind: 'error-after' },
  'is cut off': { kind: 'torn' },
  'comes late': { kind: 'late', afterMs: 50_000 },
}

const ACTS = {
  stop: { decide: life.stop, phases: ['Stopped'] },
  start: { decide: life.start, phases: ['Running'] },
  update: { decide: update({ env: { A: '1' } }), phases: ['Running', 'Stopped'] },
  restart: { decide: life.restart, phases: ['Running'] },
  pause: { decide: life.pause, phases: ['Paused'] },
  resume: { decide: life.resume, phases: ['Running'] },
  delete: { decide: life.remove, phases: ['Terminated'] },
} as const
type Act = keyof typeof ACTS

interface Given {
  readonly poison: string
  /** It is poisoned from its creation, or once it runs. */
  readonly late: boolean
  readonly latencyMs: number
  readonly gapMs: number
  /** What its own user asks of it. */
  readonly its: readonly Act[]
  readonly others: readonly Act[]
}

const given: fc.Arbitrary<Given> = fc.record({
  poison: fc.constantFrom(...Object.keys(POISONS)),
  late: fc.boolean(),
  latencyMs: fc.constantFrom(0, 40),
  gapMs: fc.integer({ min: 0, max: 20_000 }),
  its: fc.array(fc.constantFrom<Act>('stop', 'start', 'restart', 'update', 'delete'), { maxLength: 4 }),
  others: fc.constantFrom<readonly Act[]>(
    ['stop', 'start', 'restart', 'delete'],
    ['pause', 'resume', 'stop', 'update', 'start'],
    ['update', 'pause', 'resume', 'delete'],
  ),
})

/** Between two looks at whether it is so far, ms. */
const LOOK_MS = 10
/** Nothing that nobody disturbs takes longer, ms. */
const PATIENCE_MS = 60_000

interface Reached {
  readonly what: string
  readonly afterMs: number
}

/** How long healthy sandboxes took for each thing that they were asked for, in virtual time. */
async function play(g: Given, isPoisoned: boolean): Promise<Reached[]> {
  const plane = createPlane({ seed: 'poison', latencyMs: g.latencyMs })
  const user = createUser(plane, false)
  const reached: Reached[] = []
  const fault = isPoisoned ? (POISONS[g.poison] ?? OK) : OK
  const until = async (id: string, what: string, from: number, phases: readonly string[]): Promise<void> => {
    while (!phases.includes(user.get(id).status.phase) && plane.clock.monotonic() < from + PATIENCE_MS)
      await plane.pass(LOOK_MS)
    reached.push({ what, afterMs: plane.clock.monotonic() - from })
  }
  const sick = await user.create()
  if (g.late) await plane.pass(1_000)
  plane.fault = (_call, args) => (isAbout(plane, sick, args) ? fault : OK)
  const from = plane.clock.monotonic()
  const healthy = [await user.create(), await user.create({ restartPolicy: { kind: 'always' } })]
  for (const id of healthy) await until(id, 'create', from, ['Running'])
  for (const [n, act] of g.others.entries()) {
    const its = g.its[n]
    if (its !== undefined) await tryTo(plane, sick, ACTS[its].decide)
    const asked = plane.clock.monotonic()
    for (const id of healthy) await user.ask(id, ACTS[act].decide)
    for (const id of healthy) await until(id, act, asked, ACTS[act].phases)
    await plane.pass(g.gapMs)
  }
  plane.crashNow()
  return reached
}

/** What cannot be asked of it in the state it is in is not asked. */
async function tryTo(plane: Plane, id: string, decide: life.Decide): Promise<void> {
  try {
    await answered(plane, (alive) =>
      commitIntent(depsOf(alive), null, async (tx, now) => {
        const { kicks } = await applyTo(tx, id, now, decide)
        return { status: 202, body: null, kicks }
      }),
    )
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error
  }
}

function isAbout({ ledger, world }: Plane, sandbox: string, [first]: readonly unknown[]): boolean {
  const given = typeof first === 'string' ? first : (first as CreateInstance | CreateVolume | undefined)?.name
  if (given === undefined) return false
  if ((world.find(given)?.name ?? given).startsWith(`hf-${sandbox}-`)) return true
  const own = [...ledger.volumes.values()].filter((v) => v.owner === sandbox)
  return own.some((v) => v.physicalName === given || v.discarded.includes(given))
}

/** Words for what is wrong, empty when nothing is. */
export async function poisoned({ seed, runs }: { seed: number; runs: number }): Promise<string> {
  const result = await fc.check(
    fc.asyncProperty(given, async (g) => {
      const [disturbed, usual] = [await play(g, true), await play(g, false)]
      for (const [n, { what, afterMs }] of disturbed.entries()) {
        const most = usual[n]?.afterMs ?? 0
        if (afterMs > most) throw new Error(`${what} took ${afterMs} ms beside it, and ${most} ms without`)
      }
    }),
    { seed, numRuns: runs },
  )
  return result.failed ? (fc.defaultReportMessage(result) ?? 'failed') : ''
}
