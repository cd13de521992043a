import type { Client } from '@holdfast/client'
import type { GlobalOptions, Io } from './context.ts'
import { EXIT } from './errors.ts'
import { locate, surroundings, type Connection } from './locate.ts'
import { runCli, type CliDeps } from './program.ts'

const sleep = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer)
      reject(signal.reason as Error)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', onAbort)
      resolve()
    }, ms)
    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort, { once: true })
  })

/** How long a create is sent again while no server accepts it, in milliseconds: longer than a restart of the server takes. */
const RETRY_LIMIT_MS = 2000

async function connectClient({ url, apiKey }: Connection): Promise<Client> {
  const { createClient } = await import('@holdfast/client')
  return createClient({ baseUrl: url, apiKey, retryLimitMs: RETRY_LIMIT_MS })
}

/** The command line program over this process: its streams, environment and signals. */
export async function main(argv: readonly string[]): Promise<number> {
  const io: Io = {
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    env: process.env,
    now: () => Date.now(),
    sleep,
  }
  // `holdfast ls | head -1`: who reads us has seen enough.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    process.exit(EXIT.brokenPipe)
  })
  const deps: CliDeps = {
    io,
    signals: {
      onInterrupt: (handler) => {
        process.on('SIGINT', handler)
        return () => process.off('SIGINT', handler)
      },
    },
    connect: (globals: GlobalOptions) => ({
      connection: () => locate(globals, surroundings(process.env)),
      client: connectClient,
    }),
  }
  return runCli(argv, deps)
}
