import { setTimeout as delay } from 'node:timers/promises'
import type { CreatedSandbox, Sandbox } from '@holdfast/client'
import { promise, WORKLOAD } from './model.ts'
import { append, check, checkAll, write, type Writer } from './payload.ts'
import type { Random } from './random.ts'
import type { SoakSandbox } from './soak-history.ts'
import { request, type SoakCaller } from './soak-requests.ts'
import { type Claim, tendVolumes } from './soak-volumes.ts'

/** Sandboxes that one client has at once. */
const LIVING_MAX = 3
/** Part of the requests whose client gives up at the first missing answer. */
const GIVES_UP = 0.25
/** How often a client waits for what it asked for before it asks for more. */
const WAITS = 0.6
/** The shortest time to live that the API takes, seconds; and how far a renewal moves it at most. */
const TTL_S = 60
const RENEWAL_S = 60
/** How long after somebody else struck a command may still end from outside, ms. */
export const SHAKEN_MS = 30_000

export interface ClientOptions extends SoakCaller {
  readonly image: string
  /** Connections to the engine break and hang. */
  readonly faultyEngine: boolean
  /** True: begin nothing more. */
  readonly done: () => boolean
}

/** What a client has, over all rounds. */
export interface Belongings {
  readonly mine: SoakSandbox[]
  readonly claims: Claim[]
  /** An acknowledged request that is sent again, to the letter. */
  sent: { readonly path: string; readonly key: string; readonly body?: object; readonly id?: string } | null
}

/** The nemesis cuts and holds connections to the engine, which commands are refused or ended by. */
const OF_THE_ENGINE = new Set(['ENGINE_FAILED', 'ENGINE_UNREACHABLE', 'TIMEOUT'])

const writerOf = (o: ClientOptions): Writer => ({
  ...o,
  excused: (s) => (s as SoakSandbox).shakenUntil > Date.now(),
  bears: (code) => o.faultyEngine && OF_THE_ENGINE.has(code),
})

/** One client: every public operation on sandboxes and volumes of its own, and now and then on somebody else's. */
export async function client(o: ClientOptions, have: Belongings): Promise<void> {
  const { random } = o
  while (!o.done()) {
    const living = have.mine.filter((s) => s.desired !== 'deleted')
    if (living.length === 0 || (living.length < LIVING_MAX && random.chance(0.2))) await create(o, have)
    else if (random.chance(0.04)) await tendVolumes(o, random, have.claims, have.mine)
    else if (random.chance(0.05)) await repeat(o, have)
    else if (random.chance(0.06)) await meddle(o, have)
    else await step(o, have, random.pick(living))
    if (random.chance(0.3)) await delay(random.int(1, 60))
  }
}

async function create(o: ClientOptions, have: Belongings): Promise<void> {
  const { random } = o
  const name = `${o.name}-${have.mine.length}`
  const shared = have.claims.filter((c) => !c.purged)
  const own = random.chance(0.12)
  const claim = own
    ? `${name}-data`
    : shared.length > 0 && random.chance(0.3)
      ? random.pick(shared).name
      : null
  const policy = random.weighted({ no: 55, always: 25, 'on-failure': 20 })
  const expires = random.chance(0.15)
  const body = {
    name,
    image: { uri: o.image },
    entrypoint: WORKLOAD,
    stopGraceSeconds: 2,
    restartPolicy: policy,
    ...(expires ? { timeout: TTL_S } : {}),
    ...(claim === null
      ? {}
      : {
          volumes: [{ name: 'data', mountPath: '/data', pvc: { claimName: claim, createIfNotExists: own } }],
        }),
  }
  const { answer, key } = await request<CreatedSandbox>(o, {
    target: name,
    action: 'create',
    method: 'POST',
    path: '/sandboxes',
    body,
    keyed: true,
    told: (made) => ({
      target: made.id,
      ...(made.expiresAt === null ? {} : { value: String(Date.parse(made.expiresAt)) }),
    }),
  })
  if (answer?.status !== 202)
    throw new Error(`create ${name} answered ${answer?.status}: ${JSON.stringify(answer?.body)}`)
  const { id } = answer.body
  const prey = random.chance(0.4)
  const made = {
    ...promise(id, name, claim),
    policy,
    expires,
    prey,
    shakenUntil: 0,
    unsure: false,
    deleteAsked: false,
  }
  o.history.sandboxes.set(id, made)
  have.mine.push(made)
  if (key !== null) have.sent = { path: '/sandboxes', key, body, id }
  if (random.chance(WAITS)) await settled(o, made)
}

async function step(o: ClientOptions, have: Belongings, s: SoakSandbox): Promise<void> {
  const { random } = o
  if (s.unsure || s.expires || s.shakenUntil > 0) await refresh(o, s)
  const writer = writerOf(o)
  // A sandbox that was struck is brought back by a wish of its user.
  if (s.shakenUntil > 0 && s.desired !== 'deleted' && random.chance(0.5)) {
    s.shakenUntil = Math.min(s.shakenUntil, Date.now())
    return wish(o, have, s, random.weighted({ start: 50, recover: 25, restart: 15, resume: 10 }))
  }
  if (s.expires && s.desired !== 'deleted' && random.chance(0.15)) return renew(o, s)
  switch (s.desired) {
    case 'running': {
      const what = random.weighted({
        write: 30,
        append: 28,
        check: 10,
        stop: 9,
        restart: 5,
        pause: 7,
        update: 5,
        delete: 4,
      })
      if (what === 'write') return write(writer, s)
      if (what === 'append') return append(writer, s)
      if (what === 'check') return check(writer, s)
      if (what === 'delete') return remove(o, s)
      if (what === 'update') return update(o, s)
      return wish(o, have, s, what)
    }
    case 'paused': {
      const what = random.weighted({ resume: 60, start: 15, stop: 15, delete: 10 })
      return what === 'delete' ? remove(o, s) : wish(o, have, s, what)
    }
    case 'stopped': {
      const what = random.weighted({ start: 70, restart: 10, update: 8, delete: 12 })
      if (what === 'update') return update(o, s)
      return what === 'delete' ? remove(o, s) : wish(o, have, s, what)
    }
    case 'deleted':
  }
}

const triesOf = (random: Random): number | undefined => (random.chance(GIVES_UP) ? 1 : undefined)

type Wish = 'start' | 'stop' | 'restart' | 'pause' | 'resume' | 'recover'

async function wish(o: ClientOptions, have: Belongings, s: SoakSandbox, what: Wish): Promise<void> {
  // Counted before it is sent: unanswered, it may have been recorded all the same.
  if (what !== 'pause' && what !== 'stop') s.mayStart++
  const path = `/sandboxes/${s.id}/${what}`
  const { answer, outcome, key } = await request(o, {
    target: s.id,
    action: what,
    method: 'POST',
    path,
    keyed: true,
    tries: triesOf(o.random),
  })
  judge(o, s, what, answer, [202])
  s.unsure = outcome !== 'ok'
  if (outcome !== 'ok') return
  s.desired = what === 'stop' ? 'stopped' : what === 'pause' ? 'paused' : 'running'
  if (key !== null) have.sent = { path, key }
  if (o.random.chance(WAITS)) await settled(o, s)
}

/** Some refusals are right: in another state, by somebody else's wish, or because its time was up. */
function judge(
  o: ClientOptions,
  s: SoakSandbox,
  what: string,
  answer: { readonly status: number; readonly body: unknown } | null,
  good: readonly number[],
): void {
  if (answer === null || good.includes(answer.status) || answer.status === 409) return
  if (answer.status === 404 && s.expires) return
  o.history.violated(
    `${what} of ${s.name} (${s.desired}) answered ${answer.status}: ${JSON.stringify(answer.body)}`,
  )
}

async function update(o: ClientOptions, s: SoakSandbox): Promise<void> {
  s.mayStart++
  const value = String(o.random.int(1, 1_000_000))
  const { answer, outcome } = await request(o, {
    target: s.id,
    action: 'update',
    value,
    method: 'PATCH',
    path: `/sandboxes/${s.id}`,
    body: { env: { ROUND: value } },
    tries: triesOf(o.random),
  })
  judge(o, s, 'update', answer, [202])
  s.unsure = outcome !== 'ok'
  if (outcome === 'ok' && o.random.chance(WAITS)) await settled(o, s)
}

async function renew(o: ClientOptions, s: SoakSandbox): Promise<void> {
  const at = new Date(Date.now() + 1_000 * (TTL_S + o.random.int(0, RENEWAL_S)))
  const { answer, outcome } = await request<{ expiresAt: string }>(o, {
    target: s.id,
    action: 'renew',
    value: String(at.getTime()),
    method: 'POST',
    path: `/sandboxes/${s.id}/renew-expiration`,
    body: { expiresAt: at.toISOString() },
    keyed: true,
    tries: triesOf(o.random),
  })
  // 400: an earlier renewal moved it further.
  judge(o, s, 'renew', answer, [200, 400])
  s.unsure = outcome !== 'ok'
}

async function remove(o: ClientOptions, s: SoakSandbox): Promise<void> {
  if (s.desired === 'running') await checkAll(writerOf(o), s)
  s.deleteAsked = true
  const { answer, outcome } = await request(o, {
    target: s.id,
    action: 'delete',
    method: 'DELETE',
    path: `/sandboxes/${s.id}`,
    tries: triesOf(o.random),
  })
  if (answer !== null && outcome !== 'ok') judge(o, s, 'delete', answer, [])
  if (outcome === 'ok') s.desired = 'deleted'
  else s.unsure = true
}

/** What is wanted of it, for a client that cannot know. */
async function refresh(o: ClientOptions, s: SoakSandbox): Promise<void> {
  const now = await o.server.call<Sandbox>('GET', `/sandboxes/${s.id}`, { limitMs: 5_000 }).catch(() => null)
  if (now === null) return
  const { status, body } = now
  if (status === 404) s.desired = 'deleted'
  else if (status === 200) s.desired = body.desired.state as SoakSandbox['desired']
  else return
  s.unsure = false
}

/** Waits a little for what was asked for; whether it comes is judged later. */
async function settled(o: ClientOptions, s: SoakSandbox): Promise<void> {
  const want = { running: 'Running', paused: 'Paused', stopped: 'Stopped', deleted: '' }[s.desired]
  for (let i = 0; i < 25 && !o.done(); i++) {
    const now = await o.server.call<Sandbox>('GET', `/sandboxes/${s.id}`).catch(() => null)
    if (now?.status === 200 && now.body.status.state === want) return
    await delay(80)
  }
}

/** An acknowledged request once more, to the letter: the same answer, and nothing happens. */
async function repeat(o: ClientOptions, have: Belongings): Promise<void> {
  if (have.sent === null) return
  const { path, key, body, id } = have.sent
  const options = { idempotencyKey: key, ...(body === undefined ? {} : { body }), limitMs: 10_000 }
  const again = await o.server.call<{ id?: string } | null>('POST', path, options).catch(() => null)
  if (again === null || again.status === 503) return
  o.history.count('repeat')
  if (again.status !== 202 || (id !== undefined && again.body?.id !== id))
    o.history.violated(
      `${path} repeated under its key answered ${again.status}: ${JSON.stringify(again.body)}`,
    )
  if (id === undefined) return
  const other = await o.server
    .call('POST', path, { ...options, body: { ...body, stopGraceSeconds: 3 } })
    .catch(() => null)
  if (other !== null && other.status !== 503 && other.status !== 409)
    o.history.violated(`another create under the same key answered ${other.status}`)
}

/** A wish about somebody else's sandbox. */
async function meddle(o: ClientOptions, have: Belongings): Promise<void> {
  const others = [...o.history.sandboxes.values()].filter(
    (s) => s.desired !== 'deleted' && !have.mine.includes(s),
  )
  if (others.length === 0) return
  const s = o.random.pick(others)
  s.shakenUntil = Date.now() + SHAKEN_MS
  s.mayStart++
  const what = o.random.pick(['stop', 'start', 'restart', 'pause', 'resume'])
  const { answer } = await request(o, {
    target: s.id,
    action: what,
    method: 'POST',
    path: `/sandboxes/${s.id}/${what}`,
    keyed: true,
    tries: triesOf(o.random),
  })
  s.shakenUntil = Date.now() + SHAKEN_MS
  s.unsure = true
  // 404: its owner deleted it meanwhile.
  if (answer !== null && ![202, 404, 409].includes(answer.status))
    o.history.violated(`${what} of ${s.name} answered ${answer.status}: ${JSON.stringify(answer.body)}`)
}
