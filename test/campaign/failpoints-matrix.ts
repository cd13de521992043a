import assert from 'node:assert/strict'
import type { StepKind } from '../../src/model/records.ts'
import type { StepPoint } from '../../src/reconcile/context.ts'
import { reachedLine, STEP_KINDS, STEP_POINTS } from '../../src/server/failpoint.ts'
import { mountsBelow } from '../support/server.ts'
import { NEEDS, type Scenario, SCENARIOS, type Setting } from './failpoints-scenarios.ts'
import {
  type Ask,
  asking,
  assertUntouched,
  hearBystander,
  openStage,
  settled,
  type Stage,
} from './failpoints-stage.ts'
import { gone } from './stage.ts'
import { until } from './until.ts'
import { verifyStillness } from './verify.ts'

/** From the request until the server has died at the point, ms. */
const DEATH_LIMIT_MS = 60_000
const EMPTY_LIMIT_MS = 90_000

export interface Pair {
  readonly kind: StepKind
  readonly point: StepPoint
}

export const nameOf = ({ kind, point }: Pair): string => `${kind}:${point}`

/** Every kind at every point: what is complete is decided by the types, not by a list. */
export const ALL_PAIRS: readonly Pair[] = STEP_KINDS.flatMap((kind) =>
  STEP_POINTS.map((point) => ({ kind, point })),
)

export interface MatrixOptions {
  readonly engine: 'docker' | 'local'
  /** The built program; from its sources when absent. */
  readonly entry?: string
  readonly pairs: readonly Pair[]
  /** Of each kind, one scenario instead of all. */
  readonly oneScenario?: boolean
  readonly say: (line: string) => void
}

export interface MatrixResult {
  readonly cases: number
  /** Pairs at which a server really died. */
  readonly hit: readonly string[]
  /** Pairs whose step this engine says that it does not take. */
  readonly notHere: readonly string[]
  /** Requests that were acknowledged before the server died; the others were repeated with their key. */
  readonly acknowledged: number
  readonly samples: number
  readonly violations: readonly string[]
}

/** Runs each pair in each scenario of its kind: the server dies there, starts again, and everything must be right. */
export async function runMatrix(o: MatrixOptions): Promise<MatrixResult> {
  const hit = new Set<string>()
  const notHere = new Set<string>()
  const violations: string[] = []
  const tally = { cases: 0, acknowledged: 0, samples: 0 }
  let stage: Stage | null = null

  const close = async (): Promise<void> => {
    const ending = stage
    stage = null
    if (ending === null) return
    tally.samples += ending.sampler.samples
    violations.push(...ending.history.violations)
    await ending.destroy().catch((error: unknown) => violations.push(`removing all: ${String(error)}`))
  }

  for (const pair of o.pairs) {
    const all = SCENARIOS[pair.kind].filter((s) => s.only === undefined || s.only === o.engine)
    for (const scenario of o.oneScenario === true ? all.slice(0, 1) : all) {
      const title = `${nameOf(pair)} by ${scenario.name}`
      const began = performance.now()
      try {
        stage ??= await openStage(o.engine, o.entry)
        const need = NEEDS[pair.kind]
        if (need !== undefined && stage.capabilities[need] !== true) {
          notHere.add(nameOf(pair))
          o.say(`     ${title}: not on this engine, which says that it has no "${need}"`)
          continue
        }
        tally.cases++
        if (await runCase(stage, pair, scenario, () => hit.add(nameOf(pair)))) tally.acknowledged++
        o.say(`ok   ${title} (${((performance.now() - began) / 1000).toFixed(1)} s)`)
      } catch (error) {
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
        violations.push(`${title}: ${text}`)
        o.say(`FAIL ${title}: ${text}\n${stage?.rig.server.log() ?? ''}`)
        // What a failed case left must not be taken for the next one's.
        await close()
      }
    }
  }
  if (stage !== null)
    await leaveEmpty(stage).catch((error: unknown) => violations.push(`at the end: ${String(error)}`))
  await close()
  for (const pair of o.pairs.map(nameOf))
    if (!hit.has(pair) && !notHere.has(pair)) violations.push(`${pair} was never hit`)
  return { ...tally, hit: [...hit], notHere: [...notHere], violations }
}

/** Resolves with true when the wish was acknowledged before the server died. */
async function runCase(stage: Stage, pair: Pair, scenario: Scenario, died: () => void): Promise<boolean> {
  const { server } = stage.rig
  const setting = await scenario.set(stage)
  await server.kill()
  await setting.whileDown?.()

  const ask = setting.request === null ? null : asking(setting.request)
  await server.start({ failpoint: nameOf(pair), waitReady: ask !== null })
  const first = ask === null ? null : await acknowledged(stage, ask, setting)
  assert.ok(await server.ended(DEATH_LIMIT_MS), `the server did not die at ${nameOf(pair)}`)
  assert.deepEqual(server.exit(), { code: null, signal: 'SIGKILL' })
  assert.equal(server.log().trimEnd().split('\n').at(-1), reachedLine(pair.kind, pair.point))
  died()

  await server.start()
  // What was not acknowledged is asked for again by the same key, as a client does.
  const made = first ?? (ask === null ? null : await acknowledged(stage, ask, setting))
  if (ask !== null) assert.ok(made, 'a server that runs answers')
  const id = made?.id ?? made?.uid ?? null
  await setting.reached(id)
  const sandbox = setting.sandbox(id)
  if (sandbox !== null) {
    await settled(stage, new Set([sandbox]))
    await server.client.sandboxes.remove(sandbox)
    await gone(server, sandbox)
  }
  await setting.clear?.(id)
  await settled(stage)
  await assertUntouched(stage)
  assert.deepEqual(stage.history.violations, [])
  return first !== null
}

interface Made {
  readonly id?: string
  readonly uid?: string
}

async function acknowledged(stage: Stage, ask: Ask, { request }: Setting): Promise<Made | null> {
  const answer = await ask.send(stage.rig.server)
  if (answer === null) return null
  // A delete that is repeated finds nothing any more.
  const repeated = request?.method === 'DELETE' && answer.status === 404
  assert.ok(
    (answer.status >= 200 && answer.status < 300) || repeated,
    `${request?.method} ${request?.path} answered ${answer.status}: ${JSON.stringify(answer.body)}`,
  )
  return answer.body ?? {}
}

/** The bystander was never touched, then nothing moves, and after everything was deleted nothing is left. */
async function leaveEmpty(stage: Stage): Promise<void> {
  const { server, world } = stage.rig
  await hearBystander(stage)
  await verifyStillness(server, stage.history)
  for (const s of await server.client.sandboxes.list()) await server.client.sandboxes.remove(s.id)
  await gone(server, stage.bystander.id)
  for (const v of await server.client.volumes.list())
    if (v.retention === 'retain') await server.client.volumes.remove(v.uid)
  const left = async (): Promise<string[]> => [
    ...(await world.instances(stage.installation)).map((i) => `instance ${i.name}`),
    ...(await world.volumes(stage.installation)).map((name) => `volume ${name}`),
    ...mountsBelow(server.stateDir).map((line) => `mount ${line}`),
  ]
  await until(
    'no instance, volume or mount is left',
    EMPTY_LIMIT_MS,
    async () => (await left()).length === 0,
    async () => (await left()).join('; '),
  )
  const audit = await server.client.audit()
  assert.deepEqual([audit.ok, audit.counts['openSteps']], [true, 0], JSON.stringify(audit))
  await server.stop()
}
