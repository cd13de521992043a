import { setTimeout as delay } from 'node:timers/promises'
import type { CreatedSandbox, Sandbox } from '@holdfast/client'
import type { TestServer } from '../support/server.ts'
import { type History, type Promised, promise, WORKLOAD } from './model.ts'
import { append, check, checkAll, write } from './payload.ts'
import type { Random } from './random.ts'
import { settle } from './requests.ts'

/** Sandboxes that one client has at once. */
const LIVING_MAX = 3
/** How often a client waits for what it asked for before it asks for more. */
const SETTLE_SHARE = 0.7

export interface ActorOptions {
  readonly name: string
  readonly server: TestServer
  readonly image: string
  readonly history: History
  readonly random: Random
  /** True: begin nothing more. */
  readonly done: () => boolean
}

type Wish = 'start' | 'stop' | 'restart' | 'pause' | 'resume'

/**
 * One client: it owns its sandboxes, does one thing after the other, and repeats what was not answered until it is,
 * under the same Idempotency-Key. Commands are never repeated.
 */
export async function act(o: ActorOptions): Promise<void> {
  const mine: Promised[] = []
  while (!o.done()) {
    const living = mine.filter((s) => s.desired !== 'deleted')
    if (living.length === 0 || (living.length < LIVING_MAX && o.random.chance(0.2)))
      mine.push(await create(o, mine.length))
    else await step(o, o.random.pick(living))
    if (o.random.chance(0.3)) await delay(o.random.int(1, 60))
  }
}

async function step(o: ActorOptions, s: Promised): Promise<void> {
  const { random } = o
  switch (s.desired) {
    case 'running': {
      const what = random.weighted({
        write: 34,
        append: 30,
        stop: 8,
        restart: 5,
        pause: 7,
        remove: 3,
        update: 4,
        check: 10,
      })
      if (what === 'write') return write(o, s)
      if (what === 'append') return append(o, s)
      if (what === 'check') return check(o, s)
      if (what === 'remove') return remove(o, s)
      if (what === 'update') return update(o, s)
      return wish(o, s, what)
    }
    case 'paused': {
      const what = random.weighted({ resume: 75, stop: 15, remove: 10 })
      return what === 'remove' ? remove(o, s) : wish(o, s, what)
    }
    case 'stopped': {
      const what = random.weighted({ start: 85, remove: 15 })
      return what === 'remove' ? remove(o, s) : wish(o, s, what)
    }
    case 'deleted':
  }
}

async function create(o: ActorOptions, n: number): Promise<Promised> {
  const name = `${o.name}-${n}`
  const claim = o.random.chance(0.15) ? `${name}-data` : null
  const pvc = { claimName: claim ?? '', deleteOnSandboxTermination: false }
  const body = {
    name,
    image: { uri: o.image },
    entrypoint: WORKLOAD,
    stopGraceSeconds: 2,
    ...(claim === null ? {} : { volumes: [{ name: 'data', mountPath: '/data', pvc }] }),
  }
  const { status, body: made } = await settle<CreatedSandbox>(o, 'POST', '/sandboxes', {
    body,
    idempotencyKey: `create-${name}`,
  })
  if (status !== 202) throw new Error(`create ${name} answered ${status}: ${JSON.stringify(made)}`)
  const promised = promise(made.id, name, claim)
  o.history.sandboxes.set(made.id, promised)
  o.history.count('create')
  if (o.random.chance(SETTLE_SHARE)) await settled(o, promised)
  return promised
}

async function wish(o: ActorOptions, s: Promised, what: Wish): Promise<void> {
  // Counted before it is sent: unanswered, it may have been recorded all the same.
  if (what !== 'pause' && what !== 'stop') s.mayStart++
  const idempotencyKey = `${what}-${s.id}-${o.random.int(0, 2 ** 31)}`
  const { status, body } = await settle(o, 'POST', `/sandboxes/${s.id}/${what}`, { idempotencyKey })
  if (status === 409) {
    o.history.count('refused')
    return
  }
  if (status !== 202) {
    o.history.violated(`${what} of ${s.name} (${s.desired}) answered ${status}: ${JSON.stringify(body)}`)
    return
  }
  s.desired = what === 'stop' ? 'stopped' : what === 'pause' ? 'paused' : 'running'
  o.history.count(what)
  if (o.random.chance(SETTLE_SHARE)) await settled(o, s)
}

async function update(o: ActorOptions, s: Promised): Promise<void> {
  s.mayStart++
  const body = { env: { ROUND: String(o.random.int(0, 1_000_000)) } }
  const { status, body: answer } = await settle(o, 'PATCH', `/sandboxes/${s.id}`, { body })
  if (status === 202) {
    o.history.count('update')
    if (o.random.chance(SETTLE_SHARE)) await settled(o, s)
  } else o.history.violated(`update of ${s.name} answered ${status}: ${JSON.stringify(answer)}`)
}

async function remove(o: ActorOptions, s: Promised): Promise<void> {
  if (s.desired === 'running') await checkAll(o, s)
  const { status, body } = await settle(o, 'DELETE', `/sandboxes/${s.id}`, {})
  // 404: an earlier try was recorded, unanswered, and has been finished since.
  if (status !== 204 && status !== 404) {
    o.history.violated(`delete of ${s.name} answered ${status}: ${JSON.stringify(body)}`)
    return
  }
  s.desired = 'deleted'
  o.history.count('delete')
}

/** Waits a little for what was asked for; whether it comes is judged at the end. */
async function settled(o: ActorOptions, s: Promised): Promise<void> {
  const want = { running: 'Running', paused: 'Paused', stopped: 'Stopped', deleted: '' }[s.desired]
  for (let i = 0; i < 25 && !o.done(); i++) {
    const now = await o.server.call<Sandbox>('GET', `/sandboxes/${s.id}`).catch(() => null)
    if (now?.status === 200 && now.body.status.state === want) return
    await delay(80)
  }
}
