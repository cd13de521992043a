import { join } from 'node:path'
import type { Engine } from '../engines/engine.ts'
import type { Clock } from '../model/clock.ts'
import { fail } from '../model/errors.ts'
import type { Ids } from '../model/ids.ts'
import type { Store } from '../store/store.ts'
import type { ServerConfig } from './config.ts'

export interface ChosenEngine {
  readonly engine: Engine
  /** How it was chosen, in words, for the first lines of the server. */
  readonly why: string
  /** A loud line for what weakens isolation, or null. */
  readonly warning: string | null
}

export const DEFAULT_DOCKER_HOST = 'unix:///var/run/docker.sock'
const PROBE_LIMIT_MS = 3_000
const META_KEY = 'engine'

interface Surroundings {
  readonly store: Store
  readonly clock: Clock
  readonly ids: Ids
  /** From a terminal, the demo or the tests, where `local` may be chosen without being asked for. */
  readonly interactive: boolean
}

/**
 * Which engine this installation has. The first start chooses and persists; later the stored one stands, and its
 * absence is Unknown, never a switch: Docker may just be late at boot (DESIGN §8).
 */
export async function chooseEngine(config: ServerConfig, at: Surroundings): Promise<ChosenEngine> {
  const stored = await at.store.read(async (tx) => {
    const chosen = await tx.meta(META_KEY)
    // Sandboxes recorded while nothing answered yet belong to the engine that was waited for.
    return chosen ?? (await tx.sandboxes({}, { offset: 0, limit: 1 })).items[0]?.engine ?? null
  })
  if (stored !== null) {
    if (config.engine !== 'auto' && config.engine !== stored)
      throw fail('STORE_ENGINE_MISMATCH', { stored, asked: config.engine })
    return build(stored, config, at, 'as chosen at the first start')
  }
  if (config.engine !== 'auto') return persist(at, await build(config.engine, config, at, 'as configured'))

  const host = config.dockerHost ?? DEFAULT_DOCKER_HOST
  const docker = await build('docker', config, at, `Docker answers at ${host}`)
  const away = await unreachable(docker.engine)
  if (away === null) return persist(at, docker)
  if (at.interactive) {
    await docker.engine.close()
    return persist(
      at,
      await build('local', config, at, `no Docker at ${host}, so sandboxes are processes on this machine`),
    )
  }
  const looked = [`Docker at ${host} (${away})`]
  return {
    ...docker,
    why: 'nothing answers yet',
    warning: `${fail('NO_ENGINE', { looked }).message} The API is up and says Unknown until Docker answers.`,
  }
}

async function unreachable(engine: Engine): Promise<string | null> {
  try {
    await engine.info({ limitMs: PROBE_LIMIT_MS })
    return null
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

async function persist(at: Surroundings, chosen: ChosenEngine): Promise<ChosenEngine> {
  await at.store.write(true, (tx) => tx.setMeta(META_KEY, chosen.engine.id))
  return chosen
}

/** The engine that a lost store was on: the one that is named, or else the only one that can be found. */
export async function engineOf(config: ServerConfig, at: Omit<Surroundings, 'store'>): Promise<Engine> {
  if (config.engine !== 'auto') return (await build(config.engine, config, at, 'as named')).engine
  const { engine } = await build('docker', config, at, 'found')
  const away = await unreachable(engine)
  if (away === null) return engine
  await engine.close()
  const host = config.dockerHost ?? DEFAULT_DOCKER_HOST
  throw fail('NO_ENGINE', { looked: [`Docker at ${host} (${away})`, 'name another with --engine'] })
}

async function build(
  id: string,
  config: ServerConfig,
  at: Omit<Surroundings, 'store'>,
  why: string,
): Promise<ChosenEngine> {
  switch (id) {
    case 'docker': {
      // Only the chosen driver is loaded: start-up time is part of how soon sandboxes are looked after again.
      const { createDockerEngine } = await import('../engines/docker/index.ts')
      return {
        engine: createDockerEngine({
          id,
          host: config.dockerHost ?? DEFAULT_DOCKER_HOST,
          certPath: config.dockerCertPath ?? undefined,
          clock: at.clock,
        }),
        why,
        warning: null,
      }
    }
    case 'local':
      return buildLocal(config, at, why)
    default:
      throw fail('NOT_IMPLEMENTED', { what: `The engine ${id}`, detail: 'this version has docker and local' })
  }
}

async function buildLocal(
  config: ServerConfig,
  at: Omit<Surroundings, 'store'>,
  why: string,
): Promise<ChosenEngine> {
  const { createLocalEngine, probeIsolation } = await import('../engines/local/index.ts')
  const probe = config.isolation === 'none' ? { none: 'as configured' } : await probeIsolation()
  if (probe !== 'namespaces' && config.isolation !== 'none' && !mayGoWithout(at)) {
    throw fail('NO_ENGINE', {
      looked: [
        `namespaces for the local engine: ${probe.none}`,
        'say --isolation none to run plain processes',
      ],
    })
  }
  const isolation = probe === 'namespaces' ? 'namespaces' : 'none'
  return {
    engine: createLocalEngine({
      id: 'local',
      root: join(config.stateDir, 'local'),
      isolation,
      allowedHostPaths: config.allowedHostPaths,
      clock: at.clock,
      ids: at.ids,
    }),
    why,
    warning:
      isolation === 'none'
        ? `ISOLATION NONE: sandboxes are plain processes of this user (${probe === 'namespaces' ? '' : probe.none}). Run only what you trust.`
        : 'The local engine is not a security boundary. Run only what you trust.',
  }
}

/** Only the demo and the tests may fall back to no isolation without being told to. */
function mayGoWithout(at: Omit<Surroundings, 'store'>): boolean {
  return at.interactive && (process.env['HOLDFAST_DEMO'] === '1' || process.env['HOLDFAST_TEST'] === '1')
}
