import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as delay } from 'node:timers/promises'
import type { Engine } from '../../src/engines/engine.ts'
import { createLocalEngine, probeIsolation } from '../../src/engines/local/index.ts'
import { systemClock, systemIds } from '../../src/server/system.ts'
import { DOCKER_SOCKET } from '../support/docker-subject.ts'
import { rawDocker, rawJson } from '../support/docker-http.ts'
import { ensureTestImage } from '../support/image.ts'
import { createTestServer, type TestServer, type TestServerOptions } from '../support/server.ts'

const INSTALLATION = 'holdfast.dev/installation'
const SANDBOX = 'holdfast.dev/sandbox'
/** Two processes of one local engine meet rarely, and for a moment only. */
const REMOVE_TRIES = 5
/** What breaks a run off from outside. */
const BREAKS = ['SIGINT', 'SIGTERM'] as const
const CALL = { limitMs: 30_000 }

/** An instance as the engine itself tells of it. */
export interface Seen {
  readonly id: string
  readonly name: string
  /** From its label. */
  readonly sandbox: string
  readonly running: boolean
}

/** What tells one life of an instance from the next. */
export interface Life {
  readonly id: string
  /** To the engine's own precision. */
  readonly startedAt: string
  /** Of the main process, on this machine. */
  readonly pid: number | null
}

/** An engine seen and acted on behind the server's back. */
export interface World {
  readonly kind: 'docker' | 'local'
  readonly image: string
  /** Names of instances that are not ours although they carry our labels: left out of what is listed. */
  readonly foreign: Set<string>
  /** Those that carry this installation's label. */
  instances(installation: string): Promise<Seen[]>
  volumes(installation: string): Promise<string[]>
  life(id: string): Promise<Life | null>
  kill(id: string): Promise<void>
  /** `docker rm -f`: the instance goes, its volumes stay. */
  remove(id: string): Promise<void>
  removeVolume(name: string): Promise<void>
  close(): Promise<void>
}

interface DockerContainer {
  readonly Id: string
  readonly Names: readonly string[]
  readonly State: string
  readonly Labels: Readonly<Record<string, string>>
}

const filters = (installation: string): string =>
  encodeURIComponent(JSON.stringify({ label: [`${INSTALLATION}=${installation}`] }))

/** Docker over plain HTTP: nothing of the product's driver is in between. */
export async function dockerWorld(socketPath: string = DOCKER_SOCKET): Promise<World> {
  const image = await ensureTestImage(socketPath)
  const act = async (method: string, path: string, ...fine: number[]): Promise<void> => {
    const { status, text } = await rawDocker(socketPath, method, path)
    if (status >= 300 && !fine.includes(status))
      throw new Error(`Docker answered ${status} to ${method} ${path}: ${text}`)
  }
  const foreign = new Set<string>()
  return {
    kind: 'docker',
    image,
    foreign,
    async instances(installation) {
      const path = `/containers/json?all=1&filters=${filters(installation)}`
      const all = await rawJson<DockerContainer[]>(socketPath, 'GET', path)
      return all
        .map((c) => ({
          id: c.Id,
          name: (c.Names[0] ?? '').slice(1),
          sandbox: c.Labels[SANDBOX] ?? '',
          running: c.State === 'running' || c.State === 'paused',
        }))
        .filter((i) => !foreign.has(i.name))
    },
    async volumes(installation) {
      const path = `/volumes?filters=${filters(installation)}`
      const all = await rawJson<{ Volumes: { Name: string }[] | null }>(socketPath, 'GET', path)
      return (all.Volumes ?? []).map((v) => v.Name)
    },
    async life(id) {
      const { status, text } = await rawDocker(socketPath, 'GET', `/containers/${id}/json`)
      if (status === 404) return null
      const { Id, State } = JSON.parse(text) as { Id: string; State: { StartedAt: string; Pid: number } }
      return { id: Id, startedAt: State.StartedAt, pid: State.Pid === 0 ? null : State.Pid }
    },
    kill: (id) => act('POST', `/containers/${id}/kill`),
    remove: (id) => act('DELETE', `/containers/${id}?force=true`, 404),
    removeVolume: (name) => act('DELETE', `/volumes/${encodeURIComponent(name)}`, 404),
    close: async () => undefined,
  }
}

/** The local engine's own files, read through a second driver on the same root. */
function localWorld(stateDir: string, isolation: 'namespaces' | 'none'): World {
  const root = join(stateDir, 'local')
  let made: Engine | null = null
  const engine = (): Engine =>
    (made ??= createLocalEngine({
      id: 'local',
      root,
      isolation,
      allowedHostPaths: [],
      clock: systemClock(),
      ids: systemIds(),
    }))
  const ours = <T extends { readonly labels: Readonly<Record<string, string>> }>(
    list: readonly T[],
    installation: string,
  ): T[] => list.filter((o) => o.labels[INSTALLATION] === installation)
  return {
    kind: 'local',
    image: 'host',
    foreign: new Set(),
    instances: async (installation) =>
      ours(await engine().listInstances(CALL), installation).map((i) => ({
        id: i.id,
        name: i.name,
        sandbox: i.labels[SANDBOX] ?? '',
        running: i.state === 'running',
      })),
    volumes: async (installation) => ours(await engine().listVolumes(CALL), installation).map((v) => v.name),
    async life(id) {
      const facts = await engine().inspectInstance(id, CALL)
      return facts === null ? null : { id: facts.id, startedAt: String(facts.startedAt), pid: null }
    },
    kill: (id) => engine().stopInstance(id, 0, CALL),
    async remove(id) {
      // The server's own driver may write the same files at this moment: whoever comes second tries again.
      for (let attempt = 1; ; attempt++) {
        try {
          return await engine().removeInstance(id, CALL)
        } catch (error) {
          if (attempt === REMOVE_TRIES) throw error
          await delay(50)
        }
      }
    },
    removeVolume: (name) => engine().removeVolume(name, CALL),
    close: async () => made?.close(),
  }
}

export interface Rig {
  readonly server: TestServer
  readonly world: World
  /** Ends the server, removes what its installation has on the engine and its state directory. */
  destroy(): Promise<void>
}

/** A server that does not run yet, and the engine that it will use. */
export async function openRig(
  kind: World['kind'],
  socketPath: string = DOCKER_SOCKET,
  over: Partial<TestServerOptions> = {},
): Promise<Rig> {
  const isolation = kind === 'local' && (await probeIsolation()) !== 'namespaces' ? 'none' : 'namespaces'
  const server = await createTestServer(
    kind === 'docker'
      ? { engine: kind, env: { DOCKER_HOST: `unix://${socketPath}` }, ...over }
      : { engine: kind, ...(isolation === 'none' ? { isolation } : {}), ...over },
  )
  const world = kind === 'docker' ? await dockerWorld(socketPath) : localWorld(server.stateDir, isolation)
  // The driver's own timers keep no process alive.
  const alive = setInterval(() => undefined, 60_000)
  const rig: Rig = {
    server,
    world,
    async destroy() {
      for (const signal of BREAKS) process.off(signal, broken)
      try {
        await server.kill()
        const installation = installationOf(server.stateDir)
        const problems = installation === null ? [] : await wipe(world, installation)
        await world.close()
        await server.destroy()
        if (problems.length > 0) throw new Error(`not everything could be removed:\n${problems.join('\n')}`)
      } finally {
        clearInterval(alive)
      }
    },
  }
  // A run that is broken off leaves nothing behind either; a second signal ends it at once.
  function broken(): void {
    const end = (): never => process.exit(130)
    rig.destroy().then(end, (error: unknown) => {
      process.stderr.write(`${String(error)}\n`)
      end()
    })
  }
  for (const signal of BREAKS) process.once(signal, broken)
  return rig
}

/** Removes all that an installation has on the engine, whatever state it is in. Errors are told, not thrown. */
export async function wipe(world: World, installation: string): Promise<string[]> {
  const problems: string[] = []
  const attempt = async (what: string, act: () => Promise<void>): Promise<void> => {
    await act().catch((error: unknown) => problems.push(`${what}: ${String(error)}`))
  }
  for (const i of await world.instances(installation)) await attempt(i.name, () => world.remove(i.id))
  for (const v of await world.volumes(installation)) await attempt(v, () => world.removeVolume(v))
  return problems
}

/** The installation's id, from the store of a server that does not run; null when it never ran. */
function installationOf(stateDir: string): string | null {
  const file = join(stateDir, 'holdfast.db')
  if (!existsSync(file)) return null
  const db = new DatabaseSync(file)
  try {
    const row = db.prepare("SELECT value FROM meta WHERE key = 'installation'").get()
    return typeof row?.['value'] === 'string' ? row['value'] : null
  } finally {
    db.close()
  }
}

/** Processes that carry one of these sandboxes' ids in their environment: what runs in an instance, on either engine. */
export function processesOf(sandboxes: ReadonlySet<string>): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const env = readFileSync(`/proc/${pid}/environ`, 'latin1')
        const id = /(?:^|\0)HOLDFAST_SANDBOX_ID=([^\0]*)/.exec(env)?.[1]
        return id !== undefined && sandboxes.has(id)
      } catch {
        // It ended between the listing and the look, or is another user's.
        return false
      }
    })
    .map(Number)
}
