import type { Duplex } from 'node:stream'
import type { Clock } from '../../model/clock.ts'
import { EngineError, sameRun, type EngineRun } from '../../model/facts.ts'
import { copyIn, copyOut } from '../docker-api/archive.ts'
import { type Api, budget, createApi } from '../docker-api/api.ts'
import { type Connection, openConnection } from '../docker-api/connection.ts'
import { engineEvents } from '../docker-api/events.ts'
import { startExec } from '../docker-api/exec.ts'
import { exitCause } from '../docker-api/exit-cause.ts'
import { createFreezeGate } from '../docker-api/freeze-gate.ts'
import { createImages } from '../docker-api/images.ts'
import { createInstances } from '../docker-api/instances.ts'
import { readLogs } from '../docker-api/logs.ts'
import { describeContainer } from '../docker-api/origin.ts'
import { createBridgeRunReader, type RunReader } from '../docker-api/run.ts'
import type { SshOptions } from '../docker-api/ssh.ts'
import { readStats } from '../docker-api/stats.ts'
import type { VersionRange } from '../docker-api/version.ts'
import { createVolumes } from '../docker-api/volumes.ts'
import type { Call, Capabilities, Engine, EngineInfo } from '../engine.ts'
import { dialContainer } from './dial.ts'

export interface DockerOptions {
  /** The engine's name in the store. */
  readonly id: string
  /** `unix:///path`, `tcp://host:port` or `ssh://[user@]host[:port][/remote/socket]`, as DOCKER_HOST. */
  readonly host: string
  /** A directory with `ca.pem`, `cert.pem` and `key.pem`, as DOCKER_CERT_PATH: TLS, always verified. */
  readonly certPath?: string | undefined
  /** Allows tcp without TLS to other machines. */
  readonly allowPlainTcp?: boolean | undefined
  readonly ssh?: SshOptions | undefined
  readonly clock: Clock
  /** A number in `[0, 1)`, for the jitter of reconnects. */
  readonly random?: (() => number) | undefined
}

/** The versions that this driver was written for; engines from 19.03 on overlap with them. */
const KNOWN_VERSIONS: VersionRange = { min: '1.40', max: '1.50' }

/**
 * The Docker engine behind `options.host`. Opens nothing before the first call. Throws `EngineError` (`invalid`,
 * `denied`) when the address itself is not valid or not safe.
 */
export function createDockerEngine(options: DockerOptions): Engine {
  const connect = (): Connection =>
    openConnection({
      endpoint: options.host,
      tlsCertPath: options.certPath,
      allowPlainTcp: options.allowPlainTcp,
      ssh: options.ssh,
      clock: options.clock,
    })
  const connection = connect()
  const api = createApi(connection, options.clock, KNOWN_VERSIONS)
  const runs = createBridgeRunReader(api)
  const gate = createFreezeGate(options.clock)
  const instances = createInstances(api, runs, gate)
  const volumes = createVolumes(api)
  const images = createImages(api)
  const capabilities = capabilitiesOf(connection.socketPath !== null)
  const random = options.random ?? Math.random

  const dial = (id: string, port: number, call: Call): Promise<Duplex> => {
    if (capabilities.dial) return dialContainer(api, instances, id, port, call)
    const text = `The engine at ${options.host} is another machine, whose container addresses are not reached from here`
    return Promise.reject(new EngineError('unsupported', 'none', text))
  }

  return {
    id: options.id,
    driver: 'docker',
    capabilities,
    info: createInfo(api, runs),
    listInstances: instances.list,
    inspectInstance: instances.inspect,
    describeInstance: (id, call) => describeContainer(instances, images, id, budget(options.clock, call)),
    createInstance: instances.create,
    startInstance: instances.start,
    stopInstance: instances.stop,
    pauseInstance: instances.pause,
    unpauseInstance: instances.unpause,
    removeInstance: instances.remove,
    async exitCause(facts, call) {
      const rest = budget(options.clock, call)
      await answersAnew(connect, options.clock, facts.run, rest())
      return exitCause(api, facts, rest())
    },
    listVolumes: volumes.list,
    inspectVolume: volumes.inspect,
    createVolume: volumes.create,
    removeVolume: volumes.remove,
    volumeIsEmpty: volumes.isEmpty,
    inspectImage: images.inspect,
    pullImage: images.pull,
    exec: (id, request, call) => startExec(api, gate, id, request, call),
    logs: (id, request, call) => readLogs(api, id, request, call),
    stats: (id, call) => readStats(api, id, call),
    copyOut: (id, path, call) => copyOut(api, id, path, call),
    copyIn: (id, path, tar, call) => copyIn(api, id, path, tar, call),
    dial,
    events: (signal) => engineEvents(api, random, signal),
    close: () => api.close(),
  }
}

/**
 * Asks the engine for its run over a connection of its own. A daemon that is stopping in order has closed its listener
 * before it ends its containers, and goes on answering on connections that it has: only a new one tells that it stays.
 * Rejects as `unreachable` when it does not answer anew, or answers as another run.
 */
async function answersAnew(
  connect: () => Connection,
  clock: Clock,
  run: EngineRun,
  call: Call,
): Promise<void> {
  const connection = connect()
  try {
    const now = await createBridgeRunReader(createApi(connection, clock, KNOWN_VERSIONS)).read(call)
    if (!sameRun(now, run)) throw new EngineError('unreachable', 'none', 'the engine was restarted meanwhile')
  } finally {
    await connection.close()
  }
}

function capabilitiesOf(local: boolean): Capabilities {
  return {
    pause: true,
    memoryLimit: true,
    cpuLimit: true,
    pidsLimit: true,
    volumeSize: false,
    tty: true,
    lanes: true,
    pull: true,
    // A container's address is on this machine's own network only on Linux; elsewhere the engine lives in a virtual machine.
    dial: local && process.platform === 'linux',
    notEnforced: ['Volume sizes are not enforced: the local volume driver of Docker has no quota.'],
  }
}

interface InfoAnswer {
  readonly OperatingSystem?: string
  readonly Driver?: string
  readonly CgroupDriver?: string
  readonly CgroupVersion?: string
  readonly LiveRestoreEnabled?: boolean
  readonly SecurityOptions?: readonly string[] | null
  readonly DockerRootDir?: string
}

/** The run is asked each time, which proves that the engine answers; the rest cannot change within a run. */
function createInfo(api: Api, runs: RunReader): Engine['info'] {
  let known: { readonly of: string; readonly details: Record<string, string> } | null = null
  return async (call): Promise<EngineInfo> => {
    const rest = budget(api.clock, call)
    const run = await runs.read(rest())
    const { api: apiVersion, engine } = await api.version(rest())
    const of = `${run.engine}/${run.boot}/${engine.Version}`
    if (known?.of !== of) {
      const told = await api.get<InfoAnswer>({
        what: 'asking the engine about itself',
        method: 'GET',
        path: '/info',
        call: rest(),
      })
      known = { of, details: detailsOf(told) }
    }
    return { version: engine.Version, apiVersion, endpoint: api.endpoint, run, details: known.details }
  }
}

function detailsOf(told: InfoAnswer): Record<string, string> {
  const security = told.SecurityOptions ?? []
  const all: Record<string, string | undefined> = {
    os: told.OperatingSystem,
    storage: told.Driver,
    cgroups: [told.CgroupDriver, told.CgroupVersion].filter((part) => part !== undefined).join(' v'),
    root: told.DockerRootDir,
    rootless: security.some((option) => option.includes('rootless')) ? 'yes' : 'no',
    liveRestore: told.LiveRestoreEnabled === true ? 'yes' : 'no',
  }
  return Object.fromEntries(
    Object.entries(all).filter(
      (entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== '',
    ),
  )
}
