import { setTimeout as delay } from 'node:timers/promises'
import type { CreatedSandbox, ExecResult, Sandbox } from '@holdfast/client'
import type { Answer, CallOptions, TestServer } from '../support/server.ts'
import { type History, type Promised, sha256, WORKLOAD } from './model.ts'
import type { Random } from './random.ts'

/** A client gives up on one intent after this: the server was never up for that long, ms. */
const INTENT_LIMIT_MS = 120_000
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

/** Repeats until there is an answer that says something: a 2xx or a 4xx. */
async function settle<T>(
  o: ActorOptions,
  method: string,
  path: string,
  options: CallOptions,
): Promise<Answer<T>> {
  const end = performance.now() + INTENT_LIMIT_MS
  for (;;) {
    try {
      const answer = await o.server.call<T>(method, path, { limitMs: 10_000, ...options })
      if (answer.status < 500) return answer
      if (answer.status !== 503)
        o.history.violated(`${method} ${path} answered ${answer.status}: ${JSON.stringify(answer.body)}`)
    } catch {
      // The server was killed before it answered, or is not up yet: whether it was recorded, the next answer tells.
      o.history.count('unanswered')
    }
    if (performance.now() > end) throw new Error(`${method} ${path} had no answer for ${INTENT_LIMIT_MS} ms`)
    await delay(o.random.int(10, 120))
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
  const promised: Promised = {
    id: made.id,
    name,
    claim,
    desired: 'running',
    files: new Map(),
    lines: new Set(),
    sent: 0,
    mayStart: 1,
  }
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

/** Runs a command once. Null when nothing is known of it: refused, unanswered, or lost on the way. */
async function exec(
  o: ActorOptions,
  s: Promised,
  command: string,
  stdin?: string,
): Promise<ExecResult | null> {
  let answer: Answer<ExecResult>
  try {
    const body = { command, timeoutSeconds: 20, ...(stdin === undefined ? {} : { stdin }) }
    answer = await o.server.call<ExecResult>('POST', `/sandboxes/${s.id}/exec`, { body })
  } catch {
    // The server was killed meanwhile; a command is not repeated.
    o.history.count('exec unanswered')
    return null
  }
  if (answer.status === 409 || answer.status === 503) {
    o.history.count('exec refused')
    await delay(o.random.int(20, 150))
    return null
  }
  // Another client stopped the sandbox under the command: it may have run in part, which is what the code says.
  if ((answer.body as { code?: string }).code === 'LANE_LOST') {
    o.history.count('exec lost')
    return null
  }
  if (answer.status !== 200) {
    o.history.violated(`exec in ${s.name} answered ${answer.status}: ${JSON.stringify(answer.body)}`)
    return null
  }
  const result = answer.body
  if (result.lost !== null || result.exitCode === null || result.timedOut) {
    o.history.count('exec lost')
    return null
  }
  o.history.count('exec')
  if (result.exitCode === 0) return result
  o.history.violated(
    `in ${s.name}, \`${command.slice(0, 80)}\` ended with ${result.exitCode}: ${result.stderr}`,
  )
  return null
}

async function write(o: ActorOptions, s: Promised): Promise<void> {
  const dir = s.claim !== null && o.random.chance(0.5) ? '/data' : '/sandbox'
  // Never the same name again: an unanswered write that lands late then disturbs no other.
  const path = `${dir}/payload-${s.sent++}`
  const data = Array.from({ length: o.random.int(1, 400) }, () => o.random.int(0, 2 ** 31).toString(36)).join(
    '\n',
  )
  const done = await exec(o, s, `cat > ${path}.tmp && mv ${path}.tmp ${path} && sha256sum < ${path}`, data)
  if (done === null) return
  const sum = sha256(data)
  if (!done.stdout.startsWith(sum))
    o.history.violated(`${s.name}: what was written to ${path} reads as ${done.stdout.trim()}, not ${sum}`)
  s.files.set(path, sum)
}

async function append(o: ActorOptions, s: Promised): Promise<void> {
  const line = s.sent++
  const done = await exec(o, s, `echo ${line} >> /sandbox/counter.log`)
  if (done !== null) s.lines.add(line)
}

/** Any one of the acknowledged files, now. */
async function check(o: ActorOptions, s: Promised): Promise<void> {
  if (s.files.size === 0) return
  const [path, sum] = o.random.pick([...s.files])
  const done = await exec(o, s, `sha256sum < ${path}`)
  if (done !== null && !done.stdout.startsWith(sum))
    o.history.violated(`${s.name}: ${path} reads as ${done.stdout.trim()}, not ${sum}`)
}

/** All acknowledged files at once: the last chance before a delete. */
async function checkAll(o: ActorOptions, s: Promised): Promise<void> {
  if (s.files.size === 0) return
  const done = await exec(o, s, `sha256sum ${[...s.files.keys()].join(' ')}`)
  if (done === null) return
  for (const [path, sum] of s.files) {
    o.history.count('file compared')
    if (!done.stdout.includes(`${sum}  ${path}`))
      o.history.violated(`${s.name}: ${path} is not as it was acknowledged:\n${done.stdout}`)
  }
}
