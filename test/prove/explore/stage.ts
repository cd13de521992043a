import { applyTo } from '../../../src/api/intents/apply.ts'
import { commitIntent, type Committed, requestHash } from '../../../src/api/intents/commit.ts'
import { createSandbox } from '../../../src/api/intents/create.ts'
import * as lifecycle from '../../../src/api/intents/lifecycle.ts'
import { purgeVolume } from '../../../src/api/intents/volumes.ts'
import { HoldfastError } from '../../../src/model/errors.ts'
import { createPlane, type Life } from '../plane.ts'
import { atRest, leftovers } from '../play.ts'
import { createUser, depsOf, REQUEST } from '../user.ts'
import type { Request, Scene } from './scenes.ts'
import { rowsOf, stateOf, versionsOf } from './state.ts'
import { createSteering, type Pending, tell } from './steering.ts'

export interface Choice {
  /** Names it in a path. */
  readonly key: string
  readonly text: string
}

/** One play of a scene in which somebody decides whatever comes next. */
export interface Stage {
  /** What can come next, always in the same order. */
  choices(): Promise<readonly Choice[]>
  take(key: string): Promise<void>
  state(): string
  /** The clients have their answers, and nothing is on its way. */
  isQuiet(): boolean
  violations(): readonly string[]
  /** Lets all come to rest by itself, and says what is wrong then. */
  end(): Promise<readonly string[]>
  discard(): void
}

interface Client {
  readonly name: string
  readonly requests: readonly Request[]
  next: number
  /** Set while a request is on its way; its process may be dead. */
  asked: { readonly life: Life } | null
  readonly said: string[]
}

/** All comes right within this after the last choice, ms. */
const COME_RIGHT_MS = 150_000
/** Two full looks, in which nothing may change, ms: there are thousands of ends, and each costs its time. */
const STILL_MS = 65_000
/** Time passes at most this far to the next thing that comes by itself, ms. */
const NEXT_MS = 120_000

export async function openStage(scene: Scene): Promise<Stage> {
  const plane = createPlane({
    seed: scene.name,
    // Else the way to a state would show in how long it waits.
    spread: 0.5,
    between: (life) => steering.between(life),
  })
  const { clock, ledger, world, monitor } = plane
  const steering = createSteering({
    world,
    clock,
    monitor,
    rows: () => rowsOf(ledger),
    versions: () => versionsOf(ledger),
  })
  plane.counting = false
  const ids = new Map(Object.entries(await scene.before(createUser(plane, false), plane)))
  const wishes = new Map([...ids.keys()].map((name) => [name, 'up']))
  const purged = new Set<string>()
  let life = await plane.alive()
  await clock.settle()
  steering.free = false
  let times = scene.times
  let crashes = scene.crash ? 1 : 0
  const clients: readonly Client[] = [
    { name: 'A', requests: scene.a, next: 0, asked: null, said: [] },
    { name: 'B', requests: scene.b, next: 0, asked: null, said: [] },
  ]

  function send(client: Client, request: Request): Promise<Committed> {
    const key = `${client.name}:${client.next}`
    const idem = { key, requestHash: requestHash(key, null) }
    const deps = depsOf(life)
    const apply = (id: string, decide: lifecycle.Decide): Promise<Committed> =>
      commitIntent(deps, idem, async (tx, now) => {
        const { kicks } = await applyTo(tx, id, now, decide)
        return { status: 202, body: null, kicks }
      })
    switch (request.kind) {
      case 'create': {
        const wanted = { ...REQUEST, ...request.change }
        return createSandbox(deps, life.engine, wanted, idem, new AbortController().signal)
      }
      case 'ask':
        return apply(ids.get(request.of) ?? '', request.decide)
      case 'renew':
        return apply(ids.get(request.of) ?? '', (record, now) =>
          lifecycle.renew((record.expiresAt ?? 0) + request.byMs)(record, now),
        )
      case 'purge':
        return purgeVolume(deps, 'sim', request.claim)
    }
  }

  /** What was acknowledged holds from here on. */
  function acknowledged(request: Request, { body }: Committed): void {
    if (request.kind === 'create') {
      ids.set(request.as, (body as { id: string }).id)
      wishes.set(request.as, 'up')
    } else if (request.kind === 'ask') wishes.set(request.of, request.wish)
    else if (request.kind === 'purge') purged.add((body as { uid: string }).uid)
  }

  function go(client: Client, request: Request): void {
    const asked: NonNullable<Client['asked']> = { life }
    client.asked = asked
    void hear(client, request, asked)
  }

  async function hear(client: Client, request: Request, asked: Client['asked']): Promise<void> {
    let answer: string
    try {
      acknowledged(request, await send(client, request))
      answer = 'yes'
    } catch (error) {
      answer = error instanceof HoldfastError ? error.code : String(error)
      if (!(error instanceof HoldfastError)) monitor.violations.push(`a request failed: ${answer}`)
    }
    if (client.asked !== asked) return
    client.said.push(answer)
    client.next++
    client.asked = null
  }

  /** Timer after timer until one of them sets something going. */
  async function passTime(): Promise<void> {
    times--
    const { commits } = ledger
    const before = [...steering.pending.keys()].join()
    const until = clock.monotonic() + NEXT_MS
    while (clock.monotonic() < until && (await clock.next()))
      if (ledger.commits !== commits || [...steering.pending.keys()].join() !== before) return
  }

  async function crash(): Promise<void> {
    crashes--
    plane.crashNow()
    steering.orphan()
    life = await plane.alive()
  }

  const canAsk = (client: Client, request: Request): boolean =>
    (client.asked === null || !client.asked.life.alive()) && (!('of' in request) || ids.has(request.of))

  /** Looks of one pass are answered in the order in which they were asked for. */
  function firstOfThread(p: Pending): boolean {
    return [...steering.pending.values()].every((q) => q.thread !== p.thread || q.n >= p.n)
  }

  async function choicesOf(p: Pending): Promise<Choice[]> {
    const name = `${p.name} ${p.about}`
    if (p.changes) {
      if (p.result === null) return [{ key: `do${p.n}`, text: `${name} is carried out` }]
      return [{ key: `ok${p.n}`, text: `${name} is answered` }]
    }
    if (!firstOfThread(p) || p.result === null) return []
    const fresh = { key: `ok${p.n}`, text: `${name} is answered` }
    if (tell(await p.run()) === tell(p.result)) return [fresh]
    return [fresh, { key: `was${p.n}`, text: `${name} is answered as it was when it was asked` }]
  }

  function pendingOf(key: string): Pending {
    const n = Number(/\d+$/.exec(key)?.[0])
    const found = steering.pending.get(n) ?? steering.astray.get(n)
    if (found === undefined) throw new Error(`${scene.name}: nothing is on its way for ${key}`)
    return found
  }

  async function perform(key: string): Promise<void> {
    const client = clients.find((c) => c.name === key)
    const request = client?.requests[client.next]
    if (client !== undefined && request !== undefined) return go(client, request)
    if (key === 'crash') return crash()
    if (key === 'time') return passTime()
    const p = pendingOf(key)
    if (key.startsWith('do')) return steering.effect(p)
    if (key.startsWith('late')) return steering.land(p)
    const result = p.changes || key.startsWith('was') ? p.result : await p.run()
    if (result === null) throw new Error(`${scene.name}: ${key} comes before its effect`)
    return steering.answer(p, result)
  }

  const stage: Stage = {
    async choices() {
      const all: Choice[] = []
      for (const client of clients) {
        const request = client.requests[client.next]
        if (request === undefined || !canAsk(client, request)) continue
        const what = request.kind === 'ask' ? request.wish : request.kind
        all.push({ key: client.name, text: `${client.name} asks: ${what}` })
      }
      for (const p of steering.pending.values()) all.push(...(await choicesOf(p)))
      for (const p of steering.astray.values())
        all.push({ key: `late${p.n}`, text: `${p.name} ${p.about} lands late` })
      if (crashes > 0) all.push({ key: 'crash', text: 'crash' })
      if (times > 0) all.push({ key: 'time', text: 'time passes' })
      return all
    },
    async take(key) {
      await perform(key)
      await clock.settle()
      monitor.check()
    },
    state: () =>
      stateOf({
        ledger,
        world,
        life,
        steering,
        now: clock.monotonic(),
        rest: [times, crashes, clients.map((c) => [c.next, c.asked?.life.alive(), c.said])],
      }),
    isQuiet: () =>
      steering.pending.size === 0 && clients.every((c) => c.next >= c.requests.length || !isAsking(c)),
    violations: () => [...monitor.violations, ...plane.fatals.map((f) => `fatal: ${f}`)],
    async end() {
      steering.free = true
      steering.astray.clear()
      await plane.pass(COME_RIGHT_MS)
      const problems = [...(await atRest(plane, STILL_MS)), ...leftovers(plane), ...differences()]
      return [...monitor.violations, ...problems]
    },
    discard: () => plane.crashNow(),
  }

  /** It waits for an answer, or has a request that it could send. */
  function isAsking(client: Client): boolean {
    const request = client.requests[client.next]
    return client.asked !== null || (request !== undefined && canAsk(client, request))
  }

  /** What was acknowledged last, and is not so. */
  function differences(): string[] {
    const problems: string[] = []
    for (const [name, id] of ids) {
      const record = ledger.sandboxes.get(id)
      const wish = wishes.get(name) ?? 'up'
      const expired = record?.expiresAt != null && record.expiresAt <= clock.now()
      const wanted = expired || wish === 'deleted' ? 'Terminated' : wish === 'stopped' ? 'Stopped' : 'Running'
      if (record?.status.phase !== wanted)
        problems.push(
          `${name} should be ${wanted}, and is ${record?.status.phase} (${record?.status.message})`,
        )
    }
    for (const uid of purged)
      if (ledger.volumes.get(uid)?.state !== 'removed') problems.push(`${uid} was to be purged, and is there`)
    return problems
  }
  return stage
}
