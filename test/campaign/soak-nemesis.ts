import { setTimeout as delay } from 'node:timers/promises'
import type { Proxy } from '../support/docker-proxy.ts'
import type { TestServer } from '../support/server.ts'
import type { Random } from './random.ts'
import type { SoakHistory, SoakSandbox } from './soak-history.ts'
import { SHAKEN_MS } from './soak-client.ts'
import type { World } from './world.ts'

/** Between the end of one fault and the next, ms. */
const PAUSE_MS = [300, 3_000] as const
/** One sandbox is struck at most this often, ms: a restart policy's growing waits are not what is tested here. */
const STRIKE_EVERY_MS = 25_000

export interface NemesisOptions {
  readonly server: TestServer
  readonly world: World
  readonly installation: string
  /** Between the server and its engine; null on an engine without a connection. */
  readonly proxy: Proxy | null
  readonly history: SoakHistory
  readonly random: Random
  readonly done: () => boolean
}

const changes = (request: string): boolean => /^(POST|DELETE) \S*\/(containers|volumes)\//.test(request)
const events = (request: string): boolean => /^GET \S*\/events/.test(request)

/** Everything but the kills of the server: one fault after the other, each undone before the next. */
export async function nemesis(o: NemesisOptions): Promise<void> {
  const struck = new Map<string, number>()
  while (!o.done()) {
    await delay(o.random.int(...PAUSE_MS))
    if (o.done()) return
    const what = o.random.weighted({
      freeze: 12,
      'kill instance': 14,
      'remove instance': 14,
      ...(o.proxy === null
        ? {}
        : {
            'cut connections': 12,
            'lose events': 14,
            'lose answers': 14,
            'slow engine': 8,
            'hang engine': 8,
          }),
    })
    const begunAt = Date.now()
    const target = await strike(o, what, struck)
    if (target === null) continue
    o.history.count(what)
    o.history.add({ kind: 'fault', what, target: target || null, begunAt, endedAt: Date.now() })
  }
}

/** Resolves when the fault is over: with the struck sandbox, '' for one that strikes none, null when there was none. */
async function strike(o: NemesisOptions, what: string, struck: Map<string, number>): Promise<string | null> {
  const { proxy, random } = o
  if (what === 'freeze') return (await freeze(o.server, random.int(300, 3_000))) ? '' : null
  if (what === 'kill instance' || what === 'remove instance') return hitInstance(o, what, struck)
  if (proxy === null) return null
  const { hooks } = proxy
  switch (what) {
    case 'cut connections':
      proxy.cut()
      return ''
    case 'lose events':
      hooks.mutes = events
      await delay(random.int(3_000, 9_000))
      delete hooks.mutes
      // A stream that told nothing for a while tells nothing of its gap either, unless it breaks.
      if (random.chance(0.5)) proxy.cut(events)
      return ''
    case 'lose answers':
      hooks.losesAnswer = (request) => changes(request) && random.chance(0.5)
      await delay(random.int(1_000, 5_000))
      delete hooks.losesAnswer
      return ''
    case 'slow engine':
      hooks.holdMs = random.int(100, 900)
      await delay(random.int(2_000, 6_000))
      delete hooks.holdMs
      return ''
    case 'hang engine':
      hooks.hang = true
      await delay(random.int(1_000, 8_000))
      delete hooks.hang
      return ''
    default:
      throw new Error(`no fault is called ${what}`)
  }
}

/** SIGSTOP and, unless it was killed meanwhile, SIGCONT to the same process. */
async function freeze(server: TestServer, ms: number): Promise<boolean> {
  if (!server.running()) return false
  const pid = server.pid()
  process.kill(pid, 'SIGSTOP')
  await delay(ms)
  if (server.running() && server.pid() === pid) process.kill(pid, 'SIGCONT')
  return true
}

/** Kills or removes an instance behind the server's back. Its sandbox counts as struck before that happens. */
async function hitInstance(
  o: NemesisOptions,
  what: 'kill instance' | 'remove instance',
  struck: Map<string, number>,
): Promise<string | null> {
  const now = Date.now()
  const prey = (await o.world.instances(o.installation)).filter((i) => {
    const s = o.history.sandboxes.get(i.sandbox)
    if (s?.prey !== true || s.desired === 'deleted') return false
    if (what === 'kill instance' && !i.running) return false
    return now - (struck.get(i.sandbox) ?? 0) > STRIKE_EVERY_MS
  })
  if (prey.length === 0) return null
  const { id, sandbox } = o.random.pick(prey)
  const s = o.history.sandboxes.get(sandbox) as SoakSandbox
  struck.set(sandbox, now)
  s.mayStart++
  s.shakenUntil = Date.now() + SHAKEN_MS
  try {
    await (what === 'kill instance' ? o.world.kill(id) : o.world.remove(id))
  } catch (error) {
    // It was paused, stopped or removed meanwhile: the strike may have missed, and counts all the same.
    o.history.count('strikes that met resistance')
    void error
  }
  return sandbox
}
