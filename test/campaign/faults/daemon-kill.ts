import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import type { Sandbox } from '@holdfast/client'
import type { StepKind } from '../../../src/model/records.ts'
import type { Random } from '../random.ts'
import { WORKLOAD } from '../model.ts'
import { assertData, gone, leaveNothing, make, putData, reach, read, run } from '../stage.ts'
import { until } from '../until.ts'
import {
  assertBystander,
  assertNoTwins,
  killContainerd,
  openPrivateRig,
  type PrivateRig,
} from './daemon-rig.ts'
import { readJournal } from './journal.ts'

export type Victim = 'dockerd' | 'containerd'

/** Sandboxes that take the step at the same time, so that some are in the middle of it. */
const AT_ONCE = 3
/** How often a kill may miss the step before the case is given up. */
const TRIES = 8
const OPEN_LIMIT_MS = 60_000
const RETURN_LIMIT_MS = 150_000
const GRACE_S = 3

/** Has to be killed, so that a stop lasts as long as its grace. */
const IGNORES_TERM = [
  'sh',
  '-c',
  `echo start >> /sandbox/starts.log; trap '' TERM; while :; do sleep 0.2; done`,
]

interface Subject {
  readonly id: string
  readonly sum: string
}

interface Act {
  readonly kind: StepKind
  /** How long the step lasts about, ms: the kill comes at a random time within. */
  readonly lastsMs: number
  readonly prepare: (on: PrivateRig, name: string) => Promise<Subject | null>
  /** Resolves with the sandbox's id. */
  readonly wish: (on: PrivateRig, name: string, s: Subject | null) => Promise<string>
  readonly reached: (on: PrivateRig, id: string, s: Subject | null) => Promise<void>
}

async function running(
  { rig }: PrivateRig,
  name: string,
  entrypoint: readonly string[] = WORKLOAD,
): Promise<Subject> {
  const { id } = await make(rig, name, { entrypoint: [...entrypoint], stopGraceSeconds: GRACE_S })
  return { id, sum: await putData(rig.server, id) }
}

const isWedged = (s: Sandbox): boolean =>
  s.status.state !== 'Running' && /cannot start this instance/.test(s.status.message)

async function runsWithData(on: PrivateRig, id: string, s: Subject | null): Promise<void> {
  const { server } = on.rig
  const settled = await until(
    `${id} runs, or says that it cannot`,
    RETURN_LIMIT_MS,
    async () => {
      const now = await read(server, id)
      return now.status.state === 'Running' || isWedged(now) ? now : null
    },
    async () => JSON.stringify(await server.client.sandboxes.explain(id)),
  )
  // Docker's own leftover of the start that was cut: said with its cause, and left by the way that the message names.
  if (isWedged(settled)) {
    on.wedged.add(id)
    assert.match(settled.status.message, /recover/)
    await server.client.sandboxes.recover(id)
    const next = await reach(server, id, 'Running', RETURN_LIMIT_MS)
    assert.equal(next.instance?.number, (settled.instance?.number ?? 0) + 1)
  }
  if (s !== null) await assertData(server, id, s.sum)
  // One that is new has its volume all the same.
  else await run(server, id, 'test -s /sandbox/starts.log')
}

export const ACTS: readonly Act[] = [
  {
    kind: 'create-instance',
    lastsMs: 20,
    prepare: async () => null,
    async wish({ rig: { server, world } }, name) {
      const body = { name, image: { uri: world.image }, entrypoint: [...WORKLOAD], stopGraceSeconds: GRACE_S }
      return (await server.client.sandboxes.create(body)).id
    },
    reached: runsWithData,
  },
  {
    kind: 'start-instance',
    lastsMs: 250,
    async prepare(on, name) {
      const s = await running(on, name)
      await on.rig.server.client.sandboxes.stop(s.id)
      await reach(on.rig.server, s.id, 'Stopped')
      return s
    },
    async wish({ rig: { server } }, _name, s) {
      await server.client.sandboxes.start(s?.id ?? '')
      return s?.id ?? ''
    },
    reached: runsWithData,
  },
  {
    kind: 'stop-instance',
    lastsMs: GRACE_S * 1_000,
    prepare: (on, name) => running(on, name, IGNORES_TERM),
    async wish({ rig: { server } }, _name, s) {
      await server.client.sandboxes.stop(s?.id ?? '')
      return s?.id ?? ''
    },
    async reached(on, id, s) {
      const { server } = on.rig
      const stopped = await reach(server, id, 'Stopped', RETURN_LIMIT_MS)
      assert.deepEqual([stopped.desired.state, stopped.desired.reason], ['stopped', 'user'])
      await server.client.sandboxes.start(id)
      await runsWithData(on, id, s)
    },
  },
  {
    kind: 'remove-instance',
    lastsMs: 150,
    prepare: (on, name) => running(on, name, IGNORES_TERM),
    async wish({ rig: { server } }, _name, s) {
      await server.client.sandboxes.remove(s?.id ?? '')
      return s?.id ?? ''
    },
    reached: ({ rig: { server } }, id) => gone(server, id, RETURN_LIMIT_MS),
  },
]

async function killNow({ daemon }: PrivateRig, victim: Victim): Promise<void> {
  if (victim === 'containerd') return killContainerd(daemon)
  await daemon.stop('KILL')
  await daemon.start()
}

/**
 * Kills the engine while steps of this kind are under way, which open rows of the journal prove at that very moment;
 * then what was wished is reached, and nothing else has happened. Resolves with how many steps were cut.
 */
async function cut(
  on: PrivateRig,
  act: Act,
  victim: Victim,
  untouched: boolean,
  random: Random,
): Promise<number> {
  const { server } = on.rig
  const journal = readJournal(server.stateDir)
  try {
    for (let attempt = 1; attempt <= TRIES; attempt++) {
      const names = Array.from({ length: AT_ONCE }, (_, n) => `${act.kind}-${attempt}-${n}-${victim}`)
      const subjects = await Promise.all(names.map((name) => act.prepare(on, name)))
      const wishes = Promise.all(names.map((name, n) => act.wish(on, name, subjects[n] ?? null)))
      await journal.whenOpen(act.kind, OPEN_LIMIT_MS)
      await delay(random.int(0, act.lastsMs / 2))
      const killing = killNow(on, victim)
      // The signal was sent before the first await inside: what is open now was open then.
      const inTheMiddle = journal.open().filter((row) => row.kind === act.kind).length
      const [ids] = await Promise.all([wishes, killing])
      for (const [n, id] of ids.entries()) await act.reached(on, id, subjects[n] ?? null)
      await assertNoTwins(on)
      await assertBystander(on, untouched)
      for (const id of ids) if (act.kind !== 'remove-instance') await server.client.sandboxes.remove(id)
      for (const id of ids) await gone(server, id, RETURN_LIMIT_MS)
      await settled(on)
      if (inTheMiddle > 0) return inTheMiddle
    }
    throw new Error(`${TRIES} kills all missed ${act.kind}`)
  } finally {
    journal.close()
  }
}

async function settled({ rig: { server } }: PrivateRig): Promise<void> {
  await until(
    'no step is open and the audit is clean',
    RETURN_LIMIT_MS,
    async () => {
      const audit = await server.client.audit()
      return audit.ok && audit.counts['openSteps'] === 0
    },
    async () => JSON.stringify(await server.client.audit()),
  )
}

export interface KillOptions {
  readonly victim: Victim
  readonly liveRestore: boolean
  readonly kinds: readonly StepKind[]
  readonly random: Random
}

/** `kill -9` of a daemon, or of its containerd, in the middle of each of these kinds of step. */
export async function killedMidStep({ victim, liveRestore, kinds, random }: KillOptions): Promise<string> {
  const on = await openPrivateRig(liveRestore)
  try {
    let steps = 0
    // A daemon without live restore ends, when it starts, what a killed one left running; containerd's end ends nothing.
    const untouched = liveRestore || victim === 'containerd'
    for (const act of ACTS.filter((a) => kinds.includes(a.kind)))
      try {
        steps += await cut(on, act, victim, untouched, random)
      } catch (error) {
        throw new Error(`in the middle of ${act.kind}: ${String(error)}\n${on.rig.server.log()}`, {
          cause: error,
        })
      }
    await leaveNothing(on.rig)
    return `${steps} steps cut, ${on.wedged.size} instances left wedged by Docker and recovered`
  } finally {
    await on.destroy()
  }
}
