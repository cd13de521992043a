import fc from 'fast-check'
import * as life from '../../../src/api/intents/lifecycle.ts'
import { applyTo } from '../../../src/api/intents/apply.ts'
import { commitIntent } from '../../../src/api/intents/commit.ts'
import { type CallName, type Fault, MUTATIONS, OK } from '../../../src/engines/simulated/faults.ts'
import type { SimContainer } from '../../../src/engines/simulated/objects.ts'
import { LABEL, nameLabel } from '../../../src/model/labels.ts'
import { depsOf } from '../user.ts'
import { about, command, type Command } from './command.ts'
import type { Model, Real, Subject } from './state.ts'

const which = fc.nat({ max: 3 })

function instanceOf(real: Real, subject: Subject): SimContainer | null {
  const name = real.plane.ledger.sandboxes.get(subject.id)?.instance?.name
  const found = name === undefined ? null : real.plane.world.find(name)
  return found === null || real.squatters.has(found.name) ? null : found
}

const kills: fc.Arbitrary<Command> = which.map((n) =>
  about('ExternalKill', n, (subject, _model, { plane, ...real }) => {
    const container = instanceOf({ plane, ...real }, subject)
    if (container?.state !== 'running' || !plane.world.daemon.up) return
    plane.behind.kill(container.id)
    if (!container.zombie) subject.killed = true
  }),
)

const removals: fc.Arbitrary<Command> = which.map((n) =>
  about('ExternalRemove', n, (subject, _model, real) => {
    const container = instanceOf(real, subject)
    if (container === null || container.zombie || !real.plane.world.daemon.up) return
    real.plane.behind.remove(container.id)
    subject.removed = true
    real.removed.add(container.name)
  }),
)

const zombies: fc.Arbitrary<Command> = which.map((n) =>
  about('Zombie', n, (subject, _model, real) => {
    const container = instanceOf(real, subject)
    if (container?.state === 'running') real.plane.behind.makeZombie(container.id)
  }),
)

/** Objects of other people that look like ours in one way or another. */
const foreigners: fc.Arbitrary<Command> = fc
  .tuple(fc.constantFrom('OurName', 'RightUid', 'WrongUid', 'VolumeRightUid', 'VolumeWrongUid'), which)
  .map(([kind, n]) =>
    about(`ForeignObject:${kind}`, n, (subject, _model, real) => {
      const { plane } = real
      const record = plane.ledger.sandboxes.get(subject.id)
      if (record === undefined || !plane.world.daemon.up) return
      const own = (name: string): Record<string, string> => ({
        [LABEL.installation]: plane.monitor.installation,
        [LABEL.uid]: `uid${String((real.count += 1)).padStart(13, '0')}`,
        [LABEL.name]: nameLabel(name),
      })
      const run = (name: string, labels: Readonly<Record<string, string>>): void => {
        const made = plane.behind.createForeign({ name, image: 'foreign', labels })
        if (real.count % 2 === 0) plane.behind.start(made.id)
        plane.monitor.guard(`container ${name}`)
      }
      const keep = (name: string, labels: Readonly<Record<string, string>>): void => {
        plane.behind.createVolume(name, labels, { '/theirs': 'data' })
        plane.monitor.guard(`volume ${name}`)
      }
      switch (kind) {
        case 'OurName': {
          const name = `hf-${record.id}-${record.instanceSeq + 1}`
          if (plane.world.find(name) !== null) return
          run(name, {})
          real.squatters.add(name)
          return
        }
        case 'RightUid': {
          const container = instanceOf(real, subject)
          if (container !== null) run(`copy-${(real.count += 1)}`, container.request.labels)
          return
        }
        case 'WrongUid': {
          const name = `hf-${record.id}-${900 + (real.count += 1)}`
          run(name, { ...own(name), [LABEL.kind]: 'instance', [LABEL.sandbox]: record.id })
          return
        }
        case 'VolumeRightUid': {
          const volume = instanceOf(real, subject)?.mounts.find((m) => m.volume !== null)?.volume
          const labels = plane.world.volumes.get(volume ?? '')?.labels
          if (labels !== undefined) keep(`copy-${(real.count += 1)}`, labels)
          return
        }
        case 'VolumeWrongUid': {
          const name = `workspace-${(real.count += 1)}`
          keep(name, { ...own(name), [LABEL.kind]: 'volume' })
        }
      }
    }),
  )

/** The engine ended or lost what ran: what is paused does not survive that. */
function shake(model: Model, real: Real): void {
  for (const subject of model.subjects) subject.shaken = true
  real.plane.monitor.accept()
}

type End = 'stop' | 'kill' | 'power'

function down(model: Model, real: Real, how: End, live: boolean): void {
  const { behind, world } = real.plane
  if (!world.daemon.up) return
  if (how === 'stop') behind.stopDaemon({ liveRestore: live })
  else if (how === 'kill') behind.killDaemon()
  else behind.cutPower()
  shake(model, real)
}

export function up(model: Model, real: Real, live: boolean): void {
  if (real.plane.world.daemon.up) return
  real.plane.behind.startDaemon({ liveRestore: live })
  shake(model, real)
}

const ends = fc.constantFrom<End>('stop', 'kill', 'power')

const restarts: fc.Arbitrary<Command> = fc
  .tuple(ends, fc.boolean(), fc.boolean(), fc.integer({ min: 0, max: 40_000 }))
  .map(([how, before, after, ms]) =>
    command(
      `RestartEngine(${how}${before ? ', live' : ''}, ${ms} ms, ${after ? 'live' : 'anew'})`,
      async (model, real) => {
        down(model, real, how, before)
        await real.plane.pass(ms)
        up(model, real, after)
      },
    ),
  )

const downs: fc.Arbitrary<Command> = fc
  .tuple(ends, fc.boolean())
  .map(([how, live]) =>
    command(`EngineDown(${how}${live ? ', live' : ''})`, (model, real) => down(model, real, how, live)),
  )

const ups: fc.Arbitrary<Command> = fc
  .boolean()
  .map((live) => command(`EngineUp(${live ? 'live' : 'anew'})`, (model, real) => up(model, real, live)))

const forgets: fc.Arbitrary<Command> = fc.constant(
  command('EngineForgets()', (model, real) => {
    const { plane } = real
    for (const container of plane.world.containers.values()) {
      plane.monitor.release(container.name)
      real.squatters.delete(container.name)
      real.removed.add(container.name)
    }
    plane.behind.forgetContainers()
    for (const subject of model.subjects) subject.removed = true
  }),
)

const vanishings: fc.Arbitrary<Command> = fc.constantFrom('engine', 'everywhere').map((where) =>
  command(`ImageVanishes(${where})`, (_model, { plane }) => {
    plane.behind.removeImage('img')
    if (where === 'everywhere') plane.behind.removeImage('img', 'registry')
  }),
)

const losses: fc.Arbitrary<Command> = fc
  .tuple(fc.constantFrom('drop', 'double', 'hold'), fc.integer({ min: 1, max: 20 }))
  .map(([fate, most]) =>
    command(`LoseEvents(${fate}, ${most})`, (_model, { plane }) => {
      let left = most
      plane.event = () => (left-- > 0 ? fate : 'deliver')
    }),
  )

const CALLS = {
  changes: (call: CallName) => MUTATIONS.has(call),
  looks: (call: CallName) => !MUTATIONS.has(call),
  creates: (call: CallName) => call === 'createInstance',
  lists: (call: CallName) => call === 'listInstances' || call === 'listVolumes',
} as const

const FAULTS: Readonly<Record<string, Fault>> = {
  errorBefore: { kind: 'error-before', error: 'failed' },
  unreachable: { kind: 'error-before' },
  errorAfter: { kind: 'error-after' },
  soon: { kind: 'late', afterMs: 3_000 },
  later: { kind: 'late', afterMs: 55_000 },
  torn: { kind: 'torn' },
  hang: { kind: 'hang' },
}
/** The engine breaks its own contract, for a full look only. */
const LIES: Readonly<Record<string, Fault>> = {
  stale: { kind: 'stale-list' },
  partial: { kind: 'partial-list', keep: ({ name }) => name.length % 2 === 0 },
}

const faults: fc.Arbitrary<Command> = fc
  .oneof(
    fc.tuple(
      fc.constantFrom('changes', 'looks', 'creates', 'lists'),
      fc.constantFrom(...Object.entries(FAULTS)),
    ),
    fc.tuple(fc.constant('lists'), fc.constantFrom(...Object.entries(LIES))),
  )
  .chain(([on, fault]) => fc.tuple(fc.constant(on), fc.constant(fault), fc.integer({ min: 1, max: 5 })))
  .map(([on, [name, fault], most]) =>
    command(`Faults(${name}, the next ${most} ${on})`, (_model, real) => {
      let left = most
      real.plane.fault = (call) => {
        // A pull may hang for half an hour before it is given up, which is no more telling than its failure.
        const suits = CALLS[on as keyof typeof CALLS](call) && !(call === 'pullImage' && name === 'hang')
        if (!suits || left <= 0) return OK
        left--
        real.figures.faults++
        return fault
      }
    }),
  )

const crashes: fc.Arbitrary<Command> = fc
  .tuple(
    fc.integer({ min: 1, max: 30 }),
    fc.constantFrom(100, 6_000, 45_000),
    fc.constantFrom(0, 0, 5_000, 50_000),
  )
  .map(([n, landsAfterMs, downMs]) =>
    command(`CrashAt(${n} more points, lands after ${landsAfterMs}, down ${downMs})`, (_model, { plane }) =>
      plane.crashAfter(n, { landsAfterMs, downMs }),
    ),
  )

const crashesNow: fc.Arbitrary<Command> = fc.constant(
  command('CrashNow()', (_model, { plane, figures }) => {
    figures.crashes++
    plane.crashNow()
  }),
)

/** The former server is asked for something right away: it may answer, but not commit. */
const seconds: fc.Arbitrary<Command> = fc.tuple(which).map(([n]) =>
  command(`SecondServer(${n})`, async (model, { plane }) => {
    const former = await plane.supersede()
    const subject = model.subjects[n % Math.max(1, model.subjects.length)]
    if (subject === undefined) return
    const fate = { committed: false }
    commitIntent(depsOf(former), null, async (tx, now) => {
      const { kicks } = await applyTo(tx, subject.id, now, life.remove)
      return { status: 202, body: null, kicks }
    }).then(
      () => (fate.committed = true),
      () => undefined, // It has to be refused, in whatever words.
    )
    await plane.clock.settle()
    if (fate.committed) plane.monitor.violations.push('a superseded server has acknowledged a delete')
  }),
)

const jumps: fc.Arbitrary<Command> = fc
  .tuple(fc.boolean(), fc.integer({ min: 1, max: 7_200 }))
  .map(([back, seconds]) =>
    command(`ClockJump(${back ? '-' : '+'}${seconds}s)`, (_model, { plane }) =>
      plane.clock.jump((back ? -1 : 1) * seconds * 1000),
    ),
  )

const ticks: fc.Arbitrary<Command> = fc
  .integer({ min: 1, max: 3_000 })
  .map((ms) => command(`Tick(${ms})`, (_model, { plane }) => plane.pass(ms)))

const advances: fc.Arbitrary<Command> = fc
  .integer({ min: 5, max: 90 })
  .map((seconds) => command(`AdvanceClock(${seconds}s)`, (_model, { plane }) => plane.pass(seconds * 1000)))

/** What happens to a control plane without anybody asking for it. */
export const nature: fc.Arbitrary<Command>[] = [
  kills,
  removals,
  zombies,
  foreigners,
  restarts,
  downs,
  ups,
  forgets,
  vanishings,
  losses,
  faults,
  faults,
  crashes,
  crashes,
  crashesNow,
  seconds,
  jumps,
  ticks,
  ticks,
  ticks,
  advances,
  advances,
]
