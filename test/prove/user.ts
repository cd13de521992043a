import { applyTo } from '../../src/api/intents/apply.ts'
import { commitIntent, type Committed, requestHash } from '../../src/api/intents/commit.ts'
import { createSandbox } from '../../src/api/intents/create.ts'
import type { Decide } from '../../src/api/intents/lifecycle.ts'
import { createVolume, purgeVolume } from '../../src/api/intents/volumes.ts'
import type { CreateRequest } from '../../src/api/rules/create.ts'
import type { ClaimRequest } from '../../src/api/rules/volumes.ts'
import type { Behind } from '../../src/engines/simulated/behind.ts'
import { HoldfastError } from '../../src/model/errors.ts'
import type { SandboxRecord, VolumeRecord } from '../../src/model/records.ts'
import type { Life, Plane } from './plane.ts'

/** A client that knows its trade: it repeats what was not answered, under the same key, and waits where it has to. */
export interface User {
  create(change?: Partial<CreateRequest>): Promise<string>
  ask(id: string, decide: Decide): Promise<void>
  createVolume(claim: string, how?: { retention?: 'retain' | 'delete'; shared?: boolean }): Promise<void>
  purge(claim: string): Promise<void>
  until(id: string, ...phases: readonly string[]): Promise<void>
  /** Time in which one thing leads to the next, or hardly any when the user is in a hurry. */
  breathe(): Promise<void>
  pass(ms: number): Promise<void>
  /** What others do to the engine; instances and volumes named here may go. */
  behind(act: (behind: Behind, name: string) => void, id: string): Promise<void>
  get(id: string): SandboxRecord
  volumeOf(id: string): VolumeRecord
}

/** Between two looks at an answer that is awaited, ms of virtual time. */
const LOOK_MS = 20
/** A request is answered within this, or something is wrong, ms. */
const ANSWER_LIMIT_MS = 120_000
/** A refusal is met by trying again for so long, ms: what is asked for is not possible yet. */
const PATIENCE_MS = 300_000
const BETWEEN_TRIES_MS = 250
const PHASE_LIMIT_MS = 1_200_000
/** A user in a hurry gives this much time, ms. */
const HURRY_MS = 70

export const REQUEST: CreateRequest = {
  name: null,
  image: 'img',
  entrypoint: ['sim', 'run'],
  env: {},
  limits: {},
  metadata: {},
  timeoutMs: null,
  restartPolicy: { kind: 'no' },
  workspace: true,
  stopGraceMs: 1_000,
  workingDir: null,
  user: null,
  mounts: [],
}

/** A mount of a claim as a request asks for it. */
export function claim(
  name: string,
  change: Partial<ClaimRequest> & { readOnly?: boolean } = {},
): CreateRequest['mounts'][number] {
  const { readOnly = false, ...request } = change
  return {
    kind: 'claim',
    name,
    path: `/${name}`,
    readOnly,
    request: {
      claim: name,
      createIfNotExists: true,
      deleteWithOwner: false,
      shared: false,
      sizeBytes: null,
      sizeText: null,
      storageClass: null,
      ...request,
    },
  }
}

/** Refusals that are met by asking again later: a state that passes, an engine that could not be asked. */
const AGAIN: readonly string[] = [
  'SANDBOX::INVALID_STATE',
  'VOLUME::IN_USE',
  'ENGINE_UNREACHABLE',
  'SERVICE_UNAVAILABLE',
  'STORE_FAILED',
]

export class Unanswered extends Error {
  override readonly name: string = 'Unanswered'
}

/**
 * Asks until there is an answer: a process that died on the way is asked again once it is back, unless the one who
 * asks gives up then.
 */
export async function answered<T>(
  plane: Plane,
  act: (life: Life) => Promise<T>,
  givesUp: boolean = false,
): Promise<T> {
  const end = plane.clock.monotonic() + ANSWER_LIMIT_MS
  while (plane.clock.monotonic() < end) {
    const life = await plane.alive()
    const answer = { done: false, value: undefined as T, error: undefined as unknown }
    act(life).then(
      (value) => Object.assign(answer, { done: true, value }),
      (error: unknown) => Object.assign(answer, { done: true, error }),
    )
    await plane.clock.settle()
    while (!answer.done && life.alive() && plane.clock.monotonic() < end) await plane.clock.advance(LOOK_MS)
    if (!answer.done && givesUp) break
    if (!answer.done) continue
    if (answer.error !== undefined) throw answer.error
    return answer.value
  }
  throw new Unanswered(`a request was not answered within ${ANSWER_LIMIT_MS} ms`)
}

/** What the API's intents need of a control plane. */
export function depsOf(life: Life): Parameters<typeof createSandbox>[0] {
  return { store: life.store, controller: life.controller, clock: life.clock, ids: life.ids }
}

export function createUser(plane: Plane, hurry: boolean): User {
  let requests = 0

  /** Tries again while it is refused because of the state that things are in. */
  async function patiently<T>(act: (life: Life) => Promise<T>): Promise<T> {
    const end = plane.clock.monotonic() + PATIENCE_MS
    for (;;) {
      try {
        return await answered(plane, act)
      } catch (error) {
        const notYet = error instanceof HoldfastError && AGAIN.includes(error.code)
        if (!notYet || plane.clock.monotonic() > end) throw error
      }
      await plane.pass(BETWEEN_TRIES_MS)
    }
  }

  const idem = (body: unknown): { key: string; requestHash: string } => ({
    key: `caller:${(requests += 1)}`,
    requestHash: requestHash('route', body),
  })

  const user: User = {
    async create(change = {}) {
      const request = { ...REQUEST, ...change }
      const key = idem(request)
      const made = await patiently((life) =>
        createSandbox(depsOf(life), life.engine, request, key, new AbortController().signal),
      )
      return (made.body as { id: string }).id
    },
    async ask(id, decide) {
      const key = idem(id)
      await patiently((life) =>
        commitIntent(depsOf(life), key, async (tx, now) => {
          const { kicks } = await applyTo(tx, id, now, decide)
          return { status: 202, body: null, kicks }
        }),
      )
    },
    async createVolume(claimName, how = {}) {
      const body = { claimName, retention: how.retention ?? 'retain', shared: how.shared ?? false }
      const key = idem(body)
      await patiently((life) =>
        createVolume(depsOf(life), life.engine, body, key, new AbortController().signal),
      )
    },
    async purge(ref) {
      await patiently(async (life): Promise<Committed | null> => {
        try {
          return await purgeVolume(depsOf(life), 'sim', ref)
        } catch (error) {
          // An earlier try was heard, and its answer lost.
          if (error instanceof HoldfastError && error.code === 'VOLUME::NOT_FOUND') return null
          throw error
        }
      })
    },
    async until(id, ...phases) {
      if (hurry) return user.pass(HURRY_MS)
      const end = plane.clock.monotonic() + PHASE_LIMIT_MS
      while (!phases.includes(user.get(id).status.phase)) {
        if (plane.clock.monotonic() > end)
          throw new Unanswered(`${id} is ${user.get(id).status.phase} and not ${phases.join(' or ')}`)
        await plane.pass(BETWEEN_TRIES_MS)
      }
    },
    breathe: () => user.pass(hurry ? HURRY_MS : 5_000),
    pass: (ms) => plane.pass(ms),
    async behind(act, id) {
      const name = user.get(id).instance?.name
      if (name === undefined || plane.world.find(name) === null) return
      act(plane.behind, name)
      plane.monitor.check()
    },
    get(id) {
      const record = plane.ledger.sandboxes.get(id)
      if (record === undefined) throw new Unanswered(`there is no sandbox ${id}`)
      return record
    },
    volumeOf(id) {
      const mount = user.get(id).spec.mounts.find((m) => m.kind === 'volume')
      const row = mount === undefined ? undefined : plane.ledger.volumes.get(mount.volume)
      if (row === undefined) throw new Unanswered(`${id} has no volume`)
      return row
    },
  }
  return user
}
