import fc from 'fast-check'
import { applyTo } from '../../../src/api/intents/apply.ts'
import { commitIntent, type Committed, requestHash } from '../../../src/api/intents/commit.ts'
import { createSandbox } from '../../../src/api/intents/create.ts'
import * as life from '../../../src/api/intents/lifecycle.ts'
import { update } from '../../../src/api/intents/update.ts'
import { createVolume, purgeVolume } from '../../../src/api/intents/volumes.ts'
import type { CreateRequest } from '../../../src/api/rules/create.ts'
import { HoldfastError } from '../../../src/model/errors.ts'
import type { Life } from '../plane.ts'
import { answered, claim, depsOf, REQUEST, Unanswered } from '../user.ts'
import { about, command, type Command } from './command.ts'
import { createSubject, learn, type Model, type Real, type Subject, type Wish } from './state.ts'

/** More sandboxes than this make runs longer and nothing else. */
const MOST = 4
const CLAIMS = ['a', 'b'] as const

type Answer =
  | { readonly kind: 'acknowledged'; readonly body: unknown }
  | { readonly kind: 'refused' }
  | { readonly kind: 'unanswered' }

/** A request of somebody who repeats it until it is answered, or gives up when the process dies on the way. */
async function request(
  real: Real,
  givesUp: boolean,
  act: (life: Life, key: { key: string; requestHash: string }) => Promise<Committed>,
): Promise<Answer> {
  const key = { key: `caller:${(real.count += 1)}`, requestHash: requestHash('route', real.count) }
  try {
    const { body } = await answered(real.plane, (alive) => act(alive, key), givesUp)
    real.figures.acknowledged++
    return { kind: 'acknowledged', body }
  } catch (error) {
    if (error instanceof HoldfastError) return { kind: 'refused' }
    if (givesUp && error instanceof Unanswered) return { kind: 'unanswered' }
    throw error
  }
}

async function intend(real: Real, id: string, decide: life.Decide, givesUp: boolean): Promise<Answer> {
  real.plane.monitor.asked(id)
  return request(real, givesUp, (alive, key) =>
    commitIntent(depsOf(alive), key, async (tx, now) => {
      const { kicks } = await applyTo(tx, id, now, decide)
      return { status: 202, body: null, kicks }
    }),
  )
}

const WISHES: readonly [string, life.Decide, Wish][] = [
  ['UserStop', life.stop, 'stopped'],
  ['UserStart', life.start, 'up'],
  ['Restart', life.restart, 'up'],
  ['Pause', life.pause, 'paused'],
  ['Resume', life.resume, 'up'],
  ['Recover', life.recover, 'up'],
]

function wished(subject: Subject, wish: Wish, answer: Answer): void {
  if (answer.kind === 'refused') return
  const sure = answer.kind === 'acknowledged'
  learn(subject.wishes, wish, sure)
  // Who asks for it to be up undoes what others did to it before.
  if (!sure || wish !== 'up') return
  subject.killed = false
  subject.removed = false
  subject.shaken = false
}

const which = fc.nat({ max: MOST - 1 })
/** One user in eight gives up when nobody answers. */
const givesUp = fc.nat({ max: 7 }).map((n) => n === 0)

const wishes: fc.Arbitrary<Command> = fc
  .tuple(fc.constantFrom(...WISHES), which, givesUp)
  .map(([[name, decide, wish], n, gives]) =>
    about(gives ? `${name}OrGiveUp` : name, n, async (subject, _model, real) =>
      wished(subject, wish, await intend(real, subject.id, decide, gives)),
    ),
  )

const deletes: fc.Arbitrary<Command> = fc
  .tuple(which, givesUp)
  .map(([n, gives]) =>
    about(gives ? 'DeleteOrGiveUp' : 'Delete', n, async (subject, _model, real) =>
      wished(subject, 'deleted', await intend(real, subject.id, life.remove, gives)),
    ),
  )

const applies: fc.Arbitrary<Command> = fc.tuple(which, fc.nat({ max: 3 })).map(([n, value]) =>
  about(`ApplySpec(V=${value})`, n, async (subject, _model, real) => {
    const answer = await intend(real, subject.id, update({ env: { V: String(value) } }), false)
    if (answer.kind === 'acknowledged') learn(subject.env, String(value), true)
  }),
)

const renews: fc.Arbitrary<Command> = fc.tuple(which, fc.integer({ min: 1, max: 600 })).map(([n, seconds]) =>
  about(`Renew(+${seconds}s)`, n, async (subject, _model, real) => {
    const holds = real.plane.ledger.sandboxes.get(subject.id)?.expiresAt ?? null
    const next = Math.max(holds ?? 0, real.plane.clock.now()) + seconds * 1000
    const answer = await intend(real, subject.id, life.renew(next), false)
    if (answer.kind === 'acknowledged') learn(subject.expiry, next, true)
  }),
)

const mounts: fc.Arbitrary<CreateRequest['mounts']> = fc.oneof(
  { weight: 2, arbitrary: fc.constant([]) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.constantFrom(...CLAIMS), fc.boolean(), fc.boolean(), fc.boolean())
      .map(([name, shared, readOnly, deleteWithOwner]) => [
        claim(name, { shared, readOnly, deleteWithOwner }),
      ]),
  },
)

export const creates: fc.Arbitrary<Command> = fc
  .record({
    mounts,
    workspace: fc.boolean(),
    always: fc.boolean(),
    deaf: fc.nat({ max: 5 }).map((n) => n === 0),
    timeoutMs: fc.oneof(
      { weight: 3, arbitrary: fc.constant(null) },
      { weight: 1, arbitrary: fc.integer({ min: 2, max: 900 }).map((s) => s * 1000) },
    ),
    gives: givesUp,
  })
  .map((r) => {
    const text = `Create(${JSON.stringify({ ...r, mounts: r.mounts.map((m) => m.name) })})`
    const change: Partial<CreateRequest> = {
      mounts: r.mounts,
      workspace: r.workspace,
      timeoutMs: r.timeoutMs,
      env: { V: 'first' },
      restartPolicy: r.always ? { kind: 'always' } : { kind: 'no' },
      entrypoint: r.deaf ? ['sim', 'ignore-term'] : ['sim', 'run'],
    }
    return command(
      text,
      (model, real) => create(model, real, { ...REQUEST, ...change }, r.gives),
      (model) => model.subjects.length < MOST,
    )
  })

async function create(model: Model, real: Real, wanted: CreateRequest, gives: boolean): Promise<void> {
  const answer = await request(real, gives, (alive, key) =>
    createSandbox(depsOf(alive), alive.engine, wanted, key, new AbortController().signal),
  )
  if (answer.kind === 'unanswered') model.maybeCreated++
  if (answer.kind !== 'acknowledged') return
  const body = answer.body as { id: string; expiresAt: string | null }
  const expiry = body.expiresAt === null ? null : Date.parse(body.expiresAt)
  model.subjects.push(createSubject(body.id, wanted.restartPolicy.kind === 'always', 'first', expiry))
}

const volumeCreates: fc.Arbitrary<Command> = fc
  .tuple(fc.constantFrom(...CLAIMS), fc.boolean())
  .map(([claimName, shared]) =>
    command(`VolumeCreate(${claimName}${shared ? ', shared' : ''})`, async (_model, real) => {
      const body = { claimName, retention: 'retain', shared } as const
      await request(real, false, (alive, key) =>
        createVolume(depsOf(alive), alive.engine, body, key, new AbortController().signal),
      )
    }),
  )

const volumePurges: fc.Arbitrary<Command> = fc
  .tuple(fc.constantFrom(...CLAIMS), givesUp)
  .map(([claimName, gives]) =>
    command(`VolumePurge(${claimName})`, async (model, real) => {
      // A retry can find the volume gone that the first try removed.
      model.maybePurged.add(claimName)
      const answer = await request(real, gives, (alive) => purgeVolume(depsOf(alive), 'sim', claimName))
      if (answer.kind === 'acknowledged') model.purged.add((answer.body as { uid: string }).uid)
    }),
  )

/** What users ask for. */
export const requests: fc.Arbitrary<Command>[] = [
  creates,
  wishes,
  wishes,
  wishes,
  deletes,
  applies,
  renews,
  volumeCreates,
  volumePurges,
]
