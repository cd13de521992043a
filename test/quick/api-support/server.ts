import { pino } from 'pino'
import { createApi, createEventBell, type Api, type ApiConfig } from '../../../src/api/index.ts'
import type { Engine } from '../../../src/engines/engine.ts'
import type { EngineHost } from '../../../src/engines/host.ts'
import { createBehind, type Behind } from '../../../src/engines/simulated/behind.ts'
import { createSimulatedEngine, type SimulatedOptions } from '../../../src/engines/simulated/engine.ts'
import { createWorld, type World } from '../../../src/engines/simulated/world.ts'
import { createGuest } from '../../../src/guest/index.ts'
import type { Controller } from '../../../src/reconcile/controller.ts'
import { createReconciler } from '../../../src/reconcile/reconciler.ts'
import { systemClock, systemIds } from '../../../src/server/system.ts'
import { hashApiKey } from '../../../src/store/secrets.ts'
import { memoryStore, type MemoryStore } from '../../../src/store/sqlite/testing.ts'

/** Whatever JSON holds: assertions reach into answers of every shape. */
export type Json = ReturnType<typeof JSON.parse>

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | number | undefined>>
  /** Parsed JSON, or the text; null for an empty body. */
  readonly body: Json
}

export interface TestServer {
  readonly api: Api
  readonly store: MemoryStore
  readonly world: World
  readonly behind: Behind
  readonly key: string
  /** Keys that the API asked the reconciler to look at; only without a reconciler. */
  readonly kicks: string[]
  readonly logs: string[]
  call(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>
  /** Polls until the sandbox is in the phase; fails after five seconds. */
  phase(id: string, phase: string): Promise<void>
  close(): Promise<void>
}

export interface Options {
  readonly config?: Partial<ApiConfig>
  readonly engine?: SimulatedOptions
  /** Changes the engine before it is used. */
  readonly wrap?: (engine: Engine) => Engine
  /** A real reconciler on the simulated engine; without it, kicks are only recorded. */
  readonly reconcile?: boolean
  readonly healthy?: boolean
}

function recorder(kicks: string[]): Controller {
  return {
    kick: (key) => void kicks.push(key),
    settled: () => Promise.resolve(),
    recovered: true,
    surveyed: true,
    stats: () => ({ queued: 0, running: 0, steps: {}, failures: 0, passes: 0 }),
  }
}

/** A whole API over a store in memory and the simulated engine, on the real clock. */
export async function startServer(options: Options = {}): Promise<TestServer> {
  const clock = systemClock()
  const ids = systemIds()
  const store = memoryStore(clock, ids)
  const world = createWorld({ clock, images: { box: { entrypoint: ['sim', 'run'] } } })
  const simulated = createSimulatedEngine(world, options.engine ?? {})
  const engine = options.wrap?.(simulated) ?? simulated
  const kicks: string[] = []
  const logs: string[] = []
  const logger = pino({ level: 'debug' }, { write: (line: string) => void logs.push(line) })
  const bell = createEventBell()
  const key = ids.secret()
  await store.write(true, (tx) =>
    tx.putApiKey({ id: 'k1', name: 'test', hash: hashApiKey(key), createdAt: clock.now() }),
  )
  const reconciler =
    options.reconcile === true
      ? createReconciler({
          store,
          engines: [engine],
          defaultEngine: engine.id,
          clock,
          ids,
          log: logger,
          endpoint: 'http://127.0.0.1:8080',
          hooks: { committed: () => bell.ring() },
          fatal: (error) => void logs.push(`fatal: ${error.message}`),
        })
      : null
  const host: EngineHost = reconciler ?? {
    defaultId: engine.id,
    get: (id) => (id === engine.id ? engine : null),
    all: () => [engine],
    health: () => ({
      ok: options.healthy !== false,
      error: options.healthy === false ? 'it is away' : null,
      since: 1_000,
    }),
  }
  const guest = createGuest({ clock, ids, epoch: store.epoch, logger })
  const api = createApi({
    store,
    clock,
    ids,
    engines: host,
    controller: reconciler ?? recorder(kicks),
    guest,
    bell,
    config: {
      listen: { host: '127.0.0.1', port: 0 },
      proxyListen: { host: '127.0.0.1', port: 0 },
      allowedHosts: [],
      allowedHostPaths: ['/srv/data'],
      stateDir: '/state',
      ...options.config,
    },
    logger,
    version: '0.0.0',
    startedAt: clock.now(),
  })
  await api.app.ready()
  await reconciler?.start()

  const call: TestServer['call'] = async (method, path, body, headers = {}) => {
    const response = await api.app.inject({
      method: method as 'GET',
      url: path,
      headers: {
        'open-sandbox-api-key': key,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { payload: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    const text = response.body
    const json = String(response.headers['content-type'] ?? '').startsWith('application/json')
    return {
      status: response.statusCode,
      headers: response.headers,
      body: text === '' ? null : json ? JSON.parse(text) : text,
    }
  }

  return {
    api,
    store,
    world,
    behind: createBehind(world),
    key,
    kicks,
    logs,
    call,
    async phase(id, phase) {
      let last = ''
      for (let i = 0; i < 500; i++) {
        const got = await call('GET', `/v1/sandboxes/${id}?includeDeleted=true`)
        last = got.body.status.state
        if (last === phase) return
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
      throw new Error(`${id} is ${last} and not ${phase} after 5 s`)
    },
    async close() {
      await api.close()
      await reconciler?.stop()
      await guest.close()
      await engine.close()
      await store.close()
    },
  }
}

export const BOX = { image: { uri: 'box' } }
