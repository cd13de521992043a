import * as life from '../../src/api/intents/lifecycle.ts'
import { type CallName, type Fault, MUTATIONS, OK } from '../../src/engines/simulated/faults.ts'
import type { SimContainer } from '../../src/engines/simulated/objects.ts'
import { HoldfastError } from '../../src/model/errors.ts'
import type { Phase, SandboxRecord } from '../../src/model/records.ts'
import { createControlPlane, type ControlPlane } from './control-plane.ts'
import { ask, sure } from './trouble.ts'

/**
 * Random wishes, faults, crashes and other people's hands on two sandboxes, all from one seed; then the faults end, and
 * what was acknowledged last has to be reached, nothing may be left over or lost, and all has to be still.
 */

export interface FuzzOptions {
  /** Effects that come late come up to this long after their call timed out, ms. */
  readonly lateMs: number
  /** Others act on the engine too: kill and remove instances, and stop and start the engine. */
  readonly others: boolean
}

export interface FuzzReport {
  readonly seed: number
  /** What was done, in order. */
  readonly log: readonly string[]
  /** What did not hold in the end; empty when all did. */
  readonly problems: readonly string[]
  /** The control plane's own events and journal, for whoever looks for the cause. */
  readonly history: readonly string[]
}

const ROUNDS = 14
/** Longer than the latest effect and than any wait after so few failures, ms. */
const COME_RIGHT_MS = 150_000
/** What is at rest stays so over two full looks at the engine, ms. */
const STILL_MS = 70_000
/** Within this many of both all has to have come right. */
const TRIES = 6

const DECIDE = {
  stop: life.stop,
  start: life.start,
  restart: life.restart,
  pause: life.pause,
  resume: life.resume,
  recover: life.recover,
  remove: life.remove,
} as const
type Wish = keyof typeof DECIDE
const WISHES: readonly (Wish | 'update')[] = [
  'stop',
  'start',
  'restart',
  'pause',
  'resume',
  'recover',
  'remove',
  'update',
]

/** One sandbox as its user sees it. */
interface Subject {
  readonly id: string
  readonly always: boolean
  /** The last wish that was acknowledged, updates left out. */
  wish: Wish
  /** Since that wish somebody else ended its instance, or removed it. */
  killed: boolean
  removed: boolean
  /** Since it was last seen running somebody else removed its instance: whoever stops it now may find it Lost. */
  missing: boolean
}

interface Run {
  readonly cp: ControlPlane
  readonly random: () => number
  readonly subjects: readonly Subject[]
  readonly log: string[]
  /** Volumes that a workload has written into. */
  readonly written: Set<string>
}

/** Plays one seed from beginning to end. */
export async function playSeed(seed: number, options: FuzzOptions): Promise<FuzzReport> {
  const random = stream(seed)
  let faulty = true
  const fault = faults(stream(seed ^ 0x5bd1e995), options.lateMs)
  const cp = createControlPlane({
    seed: `fuzz-${seed}`,
    faults: { before: (call) => (faulty ? fault(call) : OK) },
  })
  await cp.start()
  const one = await cp.add({}, random() < 0.3 ? { retention: 'retain' } : {})
  const two = await cp.add({ restartPolicy: { kind: 'always' } })
  const subjects = [subject(one, false), subject(two, true)]
  const run: Run = { cp, random, subjects, log: [], written: new Set() }

  for (let round = 0; round < ROUNDS; round++) {
    await makeWish(run, round)
    await cp.clock.advance(Math.floor(random() * 4000))
    await work(run)
    if (random() < 0.15) {
      run.log.push('crash')
      cp.crash()
      await cp.restart()
    }
    if (random() < 0.05) {
      run.log.push('power cut')
      cp.behind.cutPower()
      cp.behind.startDaemon()
    }
    if (options.others) await interfere(run)
  }
  if (!cp.world.daemon.up) cp.behind.startDaemon()
  faulty = false
  const problems = await settle(run)
  const report = { seed, log: run.log, problems, history: problems.length === 0 ? [] : await history(run) }
  // No call hangs, so nothing holds the stop.
  await cp.stop()
  return report
}

function subject(id: string, always: boolean): Subject {
  return { id, always, wish: 'start', killed: false, removed: false, missing: false }
}

/** Numbers in [0, 1) that a seed decides (mulberry32). */
function stream(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

/** About a quarter of all changes go wrong in one way or another, and few observations. */
function faults(random: () => number, lateMs: number): (call: CallName) => Fault {
  return (call) => {
    const x = random()
    if (!MUTATIONS.has(call)) return x < 0.03 ? { kind: 'error-before' } : OK
    if (x < 0.08) return { kind: 'late', afterMs: Math.floor(random() * lateMs) }
    if (x < 0.16) return { kind: 'error-after' }
    if (x < 0.22) return { kind: 'error-before', error: 'failed' }
    if (x < 0.26) return { kind: 'torn' }
    return OK
  }
}

async function makeWish(run: Run, round: number): Promise<void> {
  const { cp, random } = run
  const target = pick(run.subjects, random)
  const wish = pick(WISHES, random)
  if (wish === 'remove' && random() < 0.6) return
  try {
    if (wish === 'update') await cp.change(target.id, (record) => updated(record, round))
    else await ask(cp, target.id, DECIDE[wish])
  } catch (error) {
    // Refused, as it is to a user: nothing was acknowledged.
    if (error instanceof HoldfastError) return
    throw error
  }
  run.log.push(`${label(run, target)} ${wish}`)
  if (wish === 'update') return
  target.wish = wish
  // A wish to be up brings back what others ended or removed before it.
  if (wish !== 'stop' && wish !== 'pause') {
    target.killed = false
    target.removed = false
  }
}

function updated(record: SandboxRecord, round: number): Partial<SandboxRecord> {
  life.requireAction(record, 'update')
  return { specHash: `v1-${round}`, generation: record.generation + 1, imageId: null }
}

/** What runs writes into its volumes. */
async function work(run: Run): Promise<void> {
  for (const target of run.subjects) {
    const container = await instanceOf(run.cp, target)
    if (container?.state !== 'running') continue
    target.missing = false
    for (const { volume } of container.mounts) {
      if (volume === null) continue
      run.cp.world.writeVolume(volume, '/mine', 'data')
      run.written.add(volume)
    }
  }
}

/** Somebody else, or the engine's own service manager, does something of little likelihood. */
async function interfere(run: Run): Promise<void> {
  const { cp, random, log } = run
  if (!cp.world.daemon.up) {
    if (random() < 0.5) return
    log.push('engine starts')
    cp.behind.startDaemon()
    return
  }
  const x = random()
  if (x < 0.05) {
    log.push('engine stops')
    cp.behind.stopDaemon()
  } else if (x < 0.13) {
    const target = pick(run.subjects, random)
    const container = await instanceOf(cp, target)
    if (container === null || container.state !== 'running') return
    log.push(`${label(run, target)} killed`)
    target.killed = true
    cp.behind.kill(container.id)
    await cp.clock.advance(Math.floor(random() * 2000))
  } else if (x < 0.18) {
    const target = pick(run.subjects, random)
    const container = await instanceOf(cp, target)
    if (container === null) return
    log.push(`${label(run, target)} removed`)
    target.removed = true
    target.missing = true
    cp.behind.remove(container.id)
    await cp.clock.advance(Math.floor(random() * 2000))
  }
}

async function instanceOf(cp: ControlPlane, target: Subject): Promise<SimContainer | null> {
  const name = (await cp.get(target.id)).instance?.name
  return name === undefined ? null : cp.world.find(name)
}

function pick<T>(from: readonly T[], random: () => number): T {
  return sure(from[Math.floor(random() * from.length)], 'choice')
}

function label(run: Run, target: Subject): string {
  return target === run.subjects[0] ? 'one' : 'two'
}

/** Lets time pass until nothing is wrong and nothing moves; what is wrong at the limit. */
async function settle(run: Run): Promise<readonly string[]> {
  const { cp } = run
  let problems: readonly string[] = ['nothing was checked']
  for (let i = 0; i < TRIES && problems.length > 0; i++) {
    await cp.clock.advance(COME_RIGHT_MS)
    const before = await moved(cp)
    await cp.clock.advance(STILL_MS)
    problems = [...(await check(run)), ...(before === (await moved(cp)) ? [] : ['it is not still'])]
  }
  return problems
}

async function moved(cp: ControlPlane): Promise<string> {
  return `${cp.world.mutations()} ${await cp.store.read((tx) => tx.lastEventSeq())}`
}

async function check(run: Run): Promise<readonly string[]> {
  const { cp } = run
  const problems: string[] = []
  const records: SandboxRecord[] = []
  for (const target of run.subjects) {
    const record = await cp.get(target.id)
    records.push(record)
    const allowed: readonly string[] = phasesFor(target)
    const { phase, reason } = record.status
    if (!allowed.includes(phase)) {
      const who = label(run, target)
      problems.push(
        `${who} (${target.id}): the last wish is ${target.wish}, so it should be ${allowed.join(' or ')}; it is ${phase} (${reason}, ${record.desired} because of ${record.desiredReason})`,
      )
    }
  }
  for (const error of cp.fatals) problems.push(`fatal: ${error}`)
  const open = await cp.store.read((tx) => tx.openSteps())
  for (const row of open) problems.push(`open step ${row.step.kind} of ${row.key}`)
  problems.push(...leaks(run, records, await cp.volumes()), ...losses(run, records, await cp.volumes()))
  return problems
}

/** What the sandbox may be in the end. */
function phasesFor({ wish, always, killed, removed, missing }: Subject): readonly Phase[] {
  if (wish === 'remove') return ['Terminated']
  if (wish === 'stop' || wish === 'pause') {
    const phases: Phase[] = missing ? ['Stopped', 'Lost'] : ['Stopped']
    // What is frozen does not survive its engine, and is not frozen when it ended first.
    return wish === 'pause' ? ['Paused', ...phases] : phases
  }
  const phases: Phase[] = ['Running']
  // By its policy neither lasts. Else an end or a removal that fell into a step of ours is repaired together with it.
  if (killed && !always) phases.push('Stopped')
  if (removed && !always) phases.push('Lost')
  return phases
}

type Volumes = Awaited<ReturnType<ControlPlane['volumes']>>

function leaks(run: Run, records: readonly SandboxRecord[], volumes: Volumes): readonly string[] {
  const instances = new Set(records.map((r) => r.instance?.name))
  const names = new Set(volumes.map((v) => v.physicalName))
  return [
    ...[...run.cp.world.containers.values()]
      .filter((c) => !instances.has(c.name))
      .map((c) => `leaked instance ${c.name} (${c.state})`),
    ...[...run.cp.world.volumes.keys()].filter((name) => !names.has(name)).map((n) => `leaked volume ${n}`),
  ]
}

/** Data that a workload wrote is there, unless its sandbox was deleted together with it. */
function losses(run: Run, records: readonly SandboxRecord[], volumes: Volumes): readonly string[] {
  const problems: string[] = []
  for (const record of records) {
    for (const mount of record.spec.mounts) {
      if (mount.kind !== 'volume') continue
      const row = volumes.find((v) => v.uid === mount.volume)
      const goes = record.deletedAt !== null && (row === undefined || row.retention === 'delete')
      if (goes) continue
      for (const name of run.written) {
        if (!name.includes(mount.volume)) continue
        if (row?.physicalName !== name)
          problems.push(`volume ${name} was written to, and is not used any more`)
        if (run.cp.world.volumeContent(name)?.['/mine'] !== 'data')
          problems.push(`the data in ${name} is lost`)
      }
    }
  }
  return problems
}

async function history(run: Run): Promise<readonly string[]> {
  const { cp } = run
  const lines: [number, string][] = []
  for (const e of await cp.store.read((tx) => tx.events({ limit: 10_000 })))
    lines.push([e.at, `${e.subject} ${e.id} ${e.reason}: ${e.message}`])
  const keys = [...run.subjects.map((s) => `sandbox/${s.id}`), 'sweep/sim']
  for (const v of await cp.volumes()) keys.push(`volume/${v.uid}`)
  for (const key of keys) {
    for (const row of await cp.store.read((tx) => tx.journal(key, 1000))) {
      const closed = row.closedAt === null ? '' : ` at ${row.closedAt}`
      const name = 'name' in row.step ? row.step.name : ''
      lines.push([
        row.createdAt,
        `${key} ${row.step.kind} ${name}: ${row.state}${closed} (${row.outcome ?? ''}), attempts ${row.attempts}`,
      ])
    }
  }
  return lines.toSorted((a, b) => a[0] - b[0]).map(([at, text]) => `${at} ${text}`)
}
