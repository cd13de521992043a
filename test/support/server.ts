import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { createClient, type Client } from '@holdfast/client'

/** The program from its sources. */
export const ENTRY: string = resolve(import.meta.dirname, '../../src/cli/main.ts')
/** From the start of the process until `/ready`; generous, because tests share the machine. */
const READY_LIMIT_MS = 30_000
/** An orderly stop finishes the steps in hand, which may be a stop's grace. */
const STOP_LIMIT_MS = 30_000
/** One request of the fetch helper; waits belong to the caller. */
const CALL_LIMIT_MS = 30_000
/** The end of the server's log that a failure shows. */
const TAIL_CHARS = 6_000

export interface TestServerOptions {
  readonly engine: 'docker' | 'local'
  /** Added to the server's environment, as `DOCKER_HOST`. */
  readonly env?: NodeJS.ProcessEnv
  readonly isolation?: 'none'
  readonly logLevel?: string
  /** The program; from its sources when absent. */
  readonly entry?: string
  /** Made by the caller, and removed with the server; a new one when absent. */
  readonly stateDir?: string
}

export interface StartOptions {
  /** `kind:point[:count]`, at which the server kills itself. */
  readonly failpoint?: string
  /** False: resolves as soon as the process was made. */
  readonly waitReady?: boolean
}

/** How a process ended. */
export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface Answer<T> {
  readonly status: number
  readonly body: T
}

export interface CallOptions {
  readonly body?: object
  readonly idempotencyKey?: string
  readonly limitMs?: number
}

/** A real server as a process of its own, which keeps its state directory and addresses over restarts. */
export interface TestServer {
  readonly url: string
  readonly apiKey: string
  readonly stateDir: string
  readonly client: Client
  /** Throws when it does not run. */
  pid(): number
  running(): boolean
  start(options?: StartOptions): Promise<void>
  ready(limitMs?: number): Promise<void>
  /** SIGKILL, by its own pid. */
  kill(): Promise<void>
  /** SIGTERM; rejects when it does not end by itself with 0. */
  stop(): Promise<void>
  /** Resolves with true when the process has ended within the limit. */
  ended(limitMs: number): Promise<boolean>
  /** Of the last process; null while it runs and before the first. */
  exit(): Exit | null
  /** One request to `/v1`; any status is an answer. Rejects when there was none. */
  call<T = unknown>(method: string, path: string, options?: CallOptions): Promise<Answer<T>>
  /** Sums of `holdfast_steps_total` by kind since the server started. */
  steps(): Promise<Record<string, number>>
  /** The end of what all of its processes wrote to stderr. */
  log(): string
  /** Ends the process and removes the state directory. What is on the engine is the caller's. */
  destroy(): Promise<void>
}

/**
 * A port that is free now, outside the range that the kernel gives out by itself: nobody gets it by chance while the
 * server is down.
 */
export async function freePort(random: () => number = Math.random): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = 12_000 + Math.floor(random() * 18_000)
    const server = createServer()
    const taken = await new Promise<boolean>((done) => {
      server.once('error', () => done(true))
      server.listen(port, '127.0.0.1', () => done(false))
    })
    if (taken) continue
    server.close()
    await once(server, 'close')
    return port
  }
  throw new Error('no free port in 100 attempts')
}

/** Chooses addresses and a state directory. Nothing runs until `start`. */
export async function createTestServer(options: TestServerOptions): Promise<TestServer> {
  const stateDir = options.stateDir ?? mkdtempSync(join(tmpdir(), 'hft-'))
  const logFile = join(stateDir, 'test-stderr.log')
  const [port, proxyPort] = [await freePort(), await freePort()]
  const url = `http://127.0.0.1:${port}`
  const apiKey = 'hf_test-key'
  const headers = { 'open-sandbox-api-key': apiKey }
  let child: ChildProcess | null = null

  const gone = (): boolean => child === null || child.exitCode !== null || child.signalCode !== null
  const log = (): string => readFileSync(logFile, { encoding: 'utf8', flag: 'a+' }).slice(-TAIL_CHARS)

  function spawnServer(failpoint: string | undefined): void {
    if (!gone()) throw new Error('the server runs already')
    const env: NodeJS.ProcessEnv = {
      ...process.env,
      HOLDFAST_STATE_DIR: stateDir,
      HOLDFAST_LISTEN: `127.0.0.1:${port}`,
      HOLDFAST_PROXY_LISTEN: `127.0.0.1:${proxyPort}`,
      HOLDFAST_ENGINE: options.engine,
      HOLDFAST_API_KEY: apiKey,
      HOLDFAST_TEST: '1',
      HOLDFAST_LOG: options.logLevel ?? 'warn',
      HOLDFAST_FAILPOINT: failpoint ?? '',
      ...options.env,
    }
    const out = openSync(logFile, 'a')
    const args = [
      options.entry ?? ENTRY,
      'server',
      ...(options.isolation === undefined ? [] : ['--isolation', options.isolation]),
    ]
    child = spawn(process.execPath, args, { env, stdio: ['ignore', out, out] })
    closeSync(out)
  }

  async function ready(limitMs = READY_LIMIT_MS): Promise<void> {
    const end = performance.now() + limitMs
    for (;;) {
      if (gone()) throw new Error(`the server ended (${child?.exitCode ?? child?.signalCode}):\n${log()}`)
      if (await isReady(url)) return
      if (performance.now() > end) throw new Error(`the server was not ready within ${limitMs} ms:\n${log()}`)
      await delay(10)
    }
  }

  async function ended(limitMs: number): Promise<boolean> {
    const end = performance.now() + limitMs
    while (!gone() && performance.now() < end) await delay(5)
    return gone()
  }

  // A run that is broken off leaves no server behind; what is on the engine then stays, with its label.
  const orphan = (): void => {
    if (!gone()) child?.kill('SIGKILL')
  }
  process.on('exit', orphan)

  const server: TestServer = {
    url,
    apiKey,
    stateDir,
    client: createClient({ baseUrl: url, apiKey }),
    pid() {
      if (gone() || child?.pid === undefined) throw new Error('the server does not run')
      return child.pid
    },
    running: () => !gone(),
    async start({ failpoint, waitReady = true } = {}) {
      spawnServer(failpoint)
      if (waitReady) await ready()
    },
    ready,
    async kill() {
      if (gone()) return
      process.kill(server.pid(), 'SIGKILL')
      if (!(await ended(STOP_LIMIT_MS))) throw new Error('the server outlived SIGKILL')
    },
    async stop() {
      if (gone()) return
      process.kill(server.pid(), 'SIGTERM')
      if (!(await ended(STOP_LIMIT_MS))) {
        await server.kill()
        throw new Error(`the server did not stop within ${STOP_LIMIT_MS} ms:\n${log()}`)
      }
      if (child?.exitCode !== 0) throw new Error(`the server stopped with ${child?.exitCode}:\n${log()}`)
    },
    ended,
    exit: () => (child === null || !gone() ? null : { code: child.exitCode, signal: child.signalCode }),
    async call<T>(
      method: string,
      path: string,
      { body, idempotencyKey, limitMs = CALL_LIMIT_MS }: CallOptions = {},
    ) {
      const response = await fetch(`${url}/v1${path}`, {
        method,
        headers: {
          ...headers,
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...(idempotencyKey === undefined ? {} : { 'idempotency-key': idempotencyKey }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        signal: AbortSignal.timeout(limitMs),
      })
      const text = await response.text()
      return { status: response.status, body: (text === '' ? null : JSON.parse(text)) as T }
    },
    async steps() {
      const response = await fetch(`${url}/metrics`, { headers, signal: AbortSignal.timeout(CALL_LIMIT_MS) })
      const found = (await response.text()).matchAll(/^holdfast_steps_total\{kind="([^"]+)"\} (\d+)/gm)
      return Object.fromEntries([...found].map(([, kind, n]) => [kind ?? '', Number(n)]))
    },
    log,
    async destroy() {
      await server.kill()
      process.off('exit', orphan)
      // A removal would go through a mount and delete what is mounted.
      const mounts = mountsBelow(stateDir)
      if (mounts.length > 0)
        throw new Error(`${stateDir} is kept, since there are mounts in it:\n${mounts.join('\n')}`)
      rmSync(stateDir, { recursive: true, force: true })
    },
  }
  return server
}

/** Mounts of this machine below a directory. */
export function mountsBelow(dir: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(`${dir}/`))
}

async function isReady(url: string): Promise<boolean> {
  try {
    const response = await fetch(`${url}/ready`, { signal: AbortSignal.timeout(5_000) })
    await response.body?.cancel()
    return response.status === 200
  } catch {
    // Not listening yet, or killed meanwhile: the caller looks at the process.
    return false
  }
}
