import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pino, type Logger } from 'pino'
import { createApi } from './api/index.ts'
import { createEventBell } from './api/bell.ts'
import { createGuest, reapStale } from './guest/index.ts'
import { fail, HoldfastError } from './model/errors.ts'
import { EngineError } from './model/facts.ts'
import { writeBackup, type Backup } from './recovery/backup.ts'
import { rebuild, storedEngine, type RebuildResult } from './recovery/rebuild.ts'
import { restoreBackup, type Restored } from './recovery/restore.ts'
import { createReconciler } from './reconcile/reconciler.ts'
import { openSqliteStore } from './store/sqlite/index.ts'
import type { Store } from './store/store.ts'
import { ensureApiKey } from './server/api-key.ts'
import { loadConfig, type Address, type ServerConfig, type ServerFlags } from './server/config.ts'
import { chooseEngine, engineOf } from './server/engine.ts'
import { type Claim, claimInstallation } from './server/claim.ts'
import { failpoint } from './server/failpoint.ts'
import { logDestination, tolerateStderr } from './server/log.ts'
import { giveBackStartupMemory } from './server/memory.ts'
import { endStaleCommands } from './server/reattach.ts'
import { systemClock, systemIds } from './server/system.ts'
import { VERSION } from './server/version.ts'

/** How long a graceful stop may take before the process ends anyway, ms; containers keep running either way. */
const STOP_LIMIT_MS = 20_000

/**
 * Runs the server until a signal ends it. Resolves with the exit code: 0 after an orderly stop, the error table's code
 * for what kept it from starting. The composition root: everything is constructed here and passed in.
 */
export async function runServer(flags: ServerFlags): Promise<number> {
  try {
    return await serve(loadConfig(flags, process.env))
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error
    process.stderr.write(
      `holdfast: ${error.message}\n${error.suggestion === undefined ? '' : `${error.suggestion}\n`}`,
    )
    return error.exitCode
  }
}

async function serve(config: ServerConfig): Promise<number> {
  const clock = systemClock()
  const ids = systemIds()
  const startedAt = clock.now()
  tolerateStderr()
  const logger = pino({ level: config.logLevel, base: null }, logDestination())
  const ended = Promise.withResolvers<number>()
  const store = await openSqliteStore({ dir: config.stateDir, clock, ids, onFenced: () => ended.resolve(4) })
  let claim: Claim | null = null
  try {
    claim = await claimInstallation(store.installation, config.stateDir)
    return await serveOn(config, { clock, ids, startedAt, logger, store, ended })
  } finally {
    claim?.release()
    await store.close()
  }
}

interface Base {
  readonly clock: ReturnType<typeof systemClock>
  readonly ids: ReturnType<typeof systemIds>
  readonly startedAt: number
  readonly logger: Logger
  readonly store: Store
  readonly ended: PromiseWithResolvers<number>
}

async function serveOn(
  config: ServerConfig,
  { clock, ids, startedAt, logger, store, ended }: Base,
): Promise<number> {
  const interactive =
    process.stdin.isTTY || process.env['HOLDFAST_DEMO'] === '1' || process.env['HOLDFAST_TEST'] === '1'
  const chosen = await chooseEngine(config, { store, clock, ids, interactive })
  const { engine } = chosen
  const key = await ensureApiKey(store, config, ids, clock)
  const bell = createEventBell()
  const guest = createGuest({ clock, ids, logger, epoch: store.epoch })
  const point = failpoint(process.env['HOLDFAST_FAILPOINT'])

  const reconciler = createReconciler({
    store,
    engines: [engine],
    defaultEngine: engine.id,
    clock,
    ids,
    log: logger,
    endpoint: `http://${config.listen.host}:${config.listen.port}`,
    hooks: {
      committed: () => bell.ring(),
      instanceUp: (record, on) => {
        const { instance } = record
        if (instance?.engineId && instance.startedAt !== null && on.capabilities.lanes) {
          guest.warm({
            engine: on,
            sandbox: record.id,
            engineId: instance.engineId,
            startedAt: instance.startedAt,
          })
        }
      },
      instanceDown: (engineId) => guest.forget(engineId),
      // Programs started in every instance would slow down the first list, on which readiness waits.
      looked: () => {
        endStaleCommands({
          store,
          engines: reconciler,
          reap: (target) => reapStale(clock, target, store.epoch),
          failed: (sandbox, error) =>
            logger.warn({ sandbox, error }, 'left-over commands could not be looked for'),
        }).catch((error: unknown) =>
          logger.error({ error: String(error) }, 'left-over commands could not be looked for'),
        )
      },
      ...(point === undefined ? {} : { point }),
    },
    fatal: (error) => {
      logger.fatal({ error: error.message }, 'this control plane may no longer write')
      ended.resolve(4)
    },
  })
  const api = createApi({
    store,
    clock,
    ids,
    engines: reconciler,
    controller: reconciler,
    guest,
    bell,
    config: {
      listen: config.listen,
      proxyListen: config.proxyListen,
      allowedHosts: config.allowedHosts,
      allowedHostPaths: config.allowedHostPaths,
      proxyDomain: config.proxyDomain,
      stateDir: config.stateDir,
      tls:
        config.tls === null
          ? undefined
          : { cert: readFileSync(config.tls.certFile), key: readFileSync(config.tls.keyFile) },
    },
    logger,
    version: VERSION,
    startedAt,
  })

  const bound = await api.listen()
  const scheme = config.tls === null ? 'http' : 'https'
  const addresses = { url: urlOf(scheme, bound.api), proxyUrl: urlOf(scheme, bound.proxy) }
  await reconciler.start()
  writeServerFile(config, addresses)
  greet(config, addresses, chosen, key)
  onSignals(ended.resolve)
  giveBackStartupMemory(clock)
  const code = await ended.promise

  const late = setTimeout(() => process.exit(code), STOP_LIMIT_MS)
  rmSync(serverFile(config), { force: true })
  await api.close()
  await reconciler.stop()
  await guest.close()
  await engine.close()
  clearTimeout(late)
  return code
}

/** An address to call: every-address listeners are reached over loopback. */
function urlOf(scheme: string, a: Address): string {
  const host =
    a.host === '0.0.0.0'
      ? '127.0.0.1'
      : a.host === '::'
        ? '[::1]'
        : a.host.includes(':')
          ? `[${a.host}]`
          : a.host
  return `${scheme}://${host}:${a.port}`
}

const serverFile = (config: ServerConfig): string => join(config.stateDir, 'server.json')

interface Listening {
  readonly url: string
  readonly proxyUrl: string
}

/** Where the CLI on this machine finds the server. */
function writeServerFile(config: ServerConfig, at: Listening): void {
  mkdirSync(config.stateDir, { recursive: true, mode: 0o700 })
  writeFileSync(
    serverFile(config),
    `${JSON.stringify({ url: at.url, proxyUrl: at.proxyUrl, pid: process.pid })}\n`,
    { mode: 0o600 },
  )
  chmodSync(serverFile(config), 0o600)
}

function greet(
  config: ServerConfig,
  at: Listening,
  chosen: Awaited<ReturnType<typeof chooseEngine>>,
  key: string | null,
): void {
  const lines = [
    `Holdfast ${VERSION} listens on ${at.url} (sandbox ports: ${at.proxyUrl}).`,
    `Engine: ${chosen.engine.id} (${chosen.why}). State: ${config.stateDir}`,
    ...(chosen.warning === null ? [] : [chosen.warning]),
    ...(key === null ? [] : [`API key, shown this once: ${key}`]),
    ...(process.stdin.isTTY
      ? [
          'Next, in another terminal:',
          `  holdfast create --name first ${chosen.engine.id === 'local' ? 'host' : 'busybox'} -- sleep infinity`,
          '  holdfast exec first -- echo hello',
          '  holdfast ls',
          `Docs: ${at.url}/docs`,
        ]
      : []),
  ]
  process.stderr.write(`${lines.join('\n')}\n`)
}

/** SIGTERM and SIGINT end in order; a second one ends at once. Containers keep running. */
function onSignals(end: (code: number) => void): void {
  let first = true
  const handler = (signal: NodeJS.Signals): void => {
    if (!first) process.exit(signal === 'SIGINT' ? 130 : 143)
    first = false
    end(0)
  }
  // The handlers stay until the process is gone, so that a second signal still ends it at once.
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.on(name, handler)
}

/** Backs a state directory up, beside a running server or without one. Throws `HoldfastError`. */
export function backupState(o: { stateDir: string; target: string; force: boolean }): Promise<Backup> {
  return writeBackup({ ...o, clock: systemClock(), version: VERSION })
}

/** Makes a backup the store of a state directory that no server uses. Throws `HoldfastError`. */
export function restoreState(o: { stateDir: string; source: string; force: boolean }): Promise<Restored> {
  return restoreBackup({ ...o, clock: systemClock() })
}

export type { RebuildResult } from './recovery/rebuild.ts'

/** Makes a store, or completes a restored one, from what the engine tells. Throws `HoldfastError`. */
export async function rebuildState(o: {
  flags: ServerFlags
  installation: string | null
  dryRun: boolean
  force: boolean
}): Promise<RebuildResult> {
  const { flags, ...how } = o
  const given = loadConfig(flags, process.env)
  const stored = given.engine === 'auto' ? storedEngine(given.stateDir) : null
  const config: ServerConfig = stored === null ? given : { ...given, engine: stored }
  const clock = systemClock()
  const ids = systemIds()
  const engine = await engineOf(config, { clock, ids, interactive: process.env['HOLDFAST_TEST'] === '1' })
  try {
    return await rebuild({ ...how, stateDir: config.stateDir, engine, clock, ids })
  } catch (error) {
    if (!(error instanceof EngineError)) throw error
    throw fail('ENGINE_UNREACHABLE', { engine: engine.id, detail: error.message })
  } finally {
    await engine.close()
  }
}
