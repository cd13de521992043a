import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join, resolve } from 'node:path'
import { until } from './story.ts'

const ENTRY = resolve(import.meta.dirname, '../../src/cli/main.ts')

export interface DemoServer {
  readonly pid: number
  readonly stderr: () => string
  /** A real SIGKILL, to this process only. */
  kill(): Promise<void>
  /** Resolves when it died by itself (a failpoint). */
  died(limitMs: number): Promise<void>
  stop(): Promise<void>
}

export interface DemoServerOptions {
  readonly stateDir: string
  readonly listen: string
  readonly proxyListen: string
  readonly failpoint?: string
}

/** The real server as a process of its own. Resolves when it is ready. */
export async function startServer(options: DemoServerOptions): Promise<DemoServer> {
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    HOLDFAST_STATE_DIR: options.stateDir,
    HOLDFAST_LISTEN: options.listen,
    HOLDFAST_PROXY_LISTEN: options.proxyListen,
    HOLDFAST_LOG: 'warn',
    HOLDFAST_DEMO: '1',
    HOLDFAST_FAILPOINT: options.failpoint ?? '',
  }
  const child: ChildProcess = spawn(process.execPath, [ENTRY, 'server'], {
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let stderr = ''
  child.stderr?.on('data', (chunk: Buffer) => (stderr = (stderr + chunk.toString()).slice(-20_000)))
  const exited = once(child, 'exit')
  const gone = (): boolean => child.exitCode !== null || child.signalCode !== null
  await until('the server is ready', 20_000, async () => {
    if (gone()) return true
    const res = await fetch(`http://${options.listen}/ready`)
    await res.body?.cancel()
    return res.status === 200
  }).catch((error: unknown) => {
    child.kill('SIGKILL')
    throw new Error(`the server did not become ready:\n${stderr}`, { cause: error })
  })
  if (gone()) throw new Error(`the server ended at once (${child.exitCode ?? child.signalCode}):\n${stderr}`)
  const died = async (limitMs: number): Promise<void> => {
    await until('the server has ended', limitMs, async () => gone())
  }
  return {
    pid: child.pid ?? 0,
    stderr: () => stderr,
    died,
    async kill() {
      child.kill('SIGKILL')
      await exited
    },
    async stop() {
      if (gone()) return
      child.kill('SIGTERM')
      await died(20_000)
    },
  }
}

/** The CLI's own copy of the key, written at the first start. */
export function readKey(stateDir: string): string {
  return process.env['HOLDFAST_API_KEY'] || readFileSync(join(stateDir, 'cli.key'), 'utf8').trim()
}

/** A port that is free now. */
export async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port was given')
  return address.port
}
