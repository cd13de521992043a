/**
 * The main job as a story: a real server process, real sandboxes with data, real SIGKILLs. Exit code 0 only if all of
 * it held. Everything it makes is its own and is gone at its end.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient, type Client, type Sandbox } from '@holdfast/client'
import type { Engine } from '../src/engines/engine.ts'
import { systemClock, systemIds } from '../src/server/system.ts'
import { makeDemoImage, removeDemoImage } from './demo-image.ts'
import { freePort, readKey, startServer, type DemoServer } from './demo/server.ts'
import { createStory, until, type Story } from './demo/story.ts'

const CALL = { limitMs: 20_000 }
const SOCKET = '/var/run/docker.sock'
/** Grows a log for ever: what a workload that must not be lost looks like. */
const WORKLOAD = [
  'sh',
  '-c',
  'n=0; while :; do n=$((n+1)); echo "$n $(date +%s)" >> /sandbox/growing.log; sleep 0.2; done',
]
const PAYLOAD =
  'dd if=/dev/urandom of=/sandbox/data.bin bs=65536 count=16 2>/dev/null; sha256sum < /sandbox/data.bin'
const NAMES = ['alpha', 'beta', 'gamma', 'delta'] as const
type Name = (typeof NAMES)[number]

interface Scene {
  readonly story: Story
  readonly client: Client
  readonly stateDir: string
  readonly image: string
  readonly restart: (failpoint?: string) => Promise<void>
  readonly server: () => DemoServer
  /** The engine itself, behind the server's back. */
  readonly engine: () => Promise<Engine>
}

async function main(): Promise<number> {
  const began = performance.now()
  const story = createStory((text) => process.stdout.write(text))
  const stateDir = mkdtempSync(join(tmpdir(), 'holdfast-demo-'))
  const [port, proxyPort] = [await freePort(), await freePort()]
  const listen = `127.0.0.1:${port}`
  const options = { stateDir, listen, proxyListen: `127.0.0.1:${proxyPort}` }
  let server: DemoServer | null = null
  let image: string | null = null
  let made: Made | null = null
  try {
    story.chapter('1. A server, and four sandboxes with data')
    // The fifth instance that it makes will be its last act.
    server = await startServer({ ...options, failpoint: 'create-instance:after-effect:5' })
    const client = createClient({ baseUrl: `http://${listen}`, apiKey: readKey(stateDir), retryLimitMs: 500 })
    const { engine, installation } = await client.info()
    made = { engine, installation }
    story.say(`The server is process ${server.pid}; engine: ${engine}.`)
    for (const line of server.stderr().split('\n'))
      if (/isolation|security boundary/i.test(line)) story.say(line)
    image = engine === 'docker' ? await makeDemoImage(SOCKET) : 'host'
    const scene: Scene = {
      story,
      client,
      stateDir,
      image,
      server: () => server as DemoServer,
      engine: () => openEngine(engine, stateDir),
      async restart(failpoint) {
        server = await startServer({ ...options, ...(failpoint === undefined ? {} : { failpoint }) })
      },
    }
    await Promise.race([play(scene), interrupted()])
    await server.stop()
  } catch (error) {
    story.check('the story came to its end', false, error instanceof Error ? error.message : String(error))
    if (server !== null) process.stderr.write(`${server.stderr()}\n`)
    if (error instanceof Error && error.cause !== undefined)
      process.stderr.write(
        `${error.cause instanceof Error ? error.cause.message : JSON.stringify(error.cause)}\n`,
      )
  } finally {
    await leave(server, image, stateDir, made)
  }
  const seconds = ((performance.now() - began) / 1000).toFixed(1)
  story.chapter(
    story.failed === 0
      ? `All ${story.passed} claims held, in ${seconds} s.`
      : `${story.failed} of ${story.passed + story.failed} claims did not hold.`,
  )
  return story.failed === 0 ? 0 : 1
}

async function play(scene: Scene): Promise<void> {
  const before = await settle(scene)
  await killInCreate(scene)
  await killInDelete(scene)
  await behindItsBack(scene, before)
  await comeBack(scene, before)
  await cleanUp(scene)
}

interface Before {
  readonly sandboxes: Record<Name, Sandbox>
  readonly sums: Record<Name, string>
  /** Lines of the growing log. */
  readonly lines: Record<Name, number>
}

const countLines = async (client: Client, name: Name): Promise<number> =>
  Number((await run(client, name, 'wc -l < /sandbox/growing.log')).trim())

async function settle({ story, client, image }: Scene): Promise<Before> {
  const sums: Partial<Record<Name, string>> = {}
  const sandboxes: Partial<Record<Name, Sandbox>> = {}
  const lines: Partial<Record<Name, number>> = {}
  for (const name of NAMES) {
    await client.sandboxes.create({
      name,
      image: { uri: image },
      entrypoint: WORKLOAD,
      restartPolicy: name === 'gamma' ? 'always' : 'no',
    })
  }
  for (const name of NAMES) {
    sandboxes[name] = await waitFor(client, name, 'Running')
    sums[name] = (await run(client, name, PAYLOAD)).trim()
    lines[name] = await countLines(client, name)
  }
  const all = Object.values(sandboxes)
  story.table([
    ['NAME', 'ID', 'STATE', 'INSTANCE', 'DATA'],
    ...all.map((s) => [
      s.name ?? '',
      s.id,
      s.status.state,
      s.instance?.name ?? '',
      (sums[s.name as Name] ?? '').slice(0, 12),
    ]),
  ])
  story.check(
    'four sandboxes run, each with 1 MiB of checksummed data and a growing log',
    all.every((s) => s.status.state === 'Running'),
  )
  return {
    sandboxes: sandboxes as Before['sandboxes'],
    sums: sums as Before['sums'],
    lines: lines as Before['lines'],
  }
}

async function killInCreate({ story, client, server, restart, image }: Scene): Promise<void> {
  story.chapter('2. SIGKILL in the middle of a create')
  const made = await client.sandboxes.create({ name: 'epsilon', image: { uri: image }, entrypoint: WORKLOAD })
  story.say(`epsilon was acknowledged as ${made.id}.`)
  await server().died(15_000)
  story.say('The server died after the engine had made the container, before it could note that.')
  await restart('remove-instance:after-intent')
  const epsilon = await waitFor(client, 'epsilon', 'Running')
  story.check('the acknowledged sandbox runs, under its acknowledged id', epsilon.id === made.id, epsilon.id)
  story.check('it was not made twice', epsilon.instance?.number === 1, epsilon.instance?.name ?? '')
}

async function killInDelete({ story, client, server }: Scene): Promise<void> {
  story.chapter('3. SIGKILL in the middle of a delete')
  const { id } = await client.sandboxes.get(await client.sandboxes.resolve('epsilon'))
  await client.sandboxes.remove(id)
  story.say('The delete of epsilon was acknowledged with 204.')
  await server().died(15_000)
  story.say('The server died after noting what it would remove, before removing it.')
}

async function behindItsBack({ story, engine }: Scene, before: Before): Promise<void> {
  story.chapter('4. While no server runs: one instance is killed, one is removed')
  const direct = await engine()
  try {
    const id = (name: Name): string => before.sandboxes[name].instance?.engineId ?? ''
    await direct.stopInstance(id('gamma'), 0, CALL)
    story.say('gamma (restart policy always): its instance was killed.')
    await direct.removeInstance(id('delta'), CALL)
    story.say('delta (no restart policy): its instance was removed from the engine.')
    const alive = await direct.inspectInstance(id('alpha'), CALL)
    story.check('alpha and beta go on without a server', alive?.state === 'running')
  } finally {
    await direct.close()
  }
}

async function comeBack({ story, client, restart }: Scene, before: Before): Promise<void> {
  story.chapter('5. The server comes back')
  await restart()
  for (const name of ['alpha', 'beta'] as const) {
    const was = before.sandboxes[name].instance
    const now = (await waitFor(client, name, 'Running')).instance
    story.check(
      `${name}: same container, not restarted`,
      now?.engineId === was?.engineId && now?.startedAt === was?.startedAt,
      `${now?.engineId?.slice(0, 12)} since ${now?.startedAt}`,
    )
  }
  const gamma = await waitFor(client, 'gamma', 'Running')
  story.check(
    'gamma: started again by its policy',
    gamma.instance?.startedAt !== before.sandboxes.gamma.instance?.startedAt,
  )

  const delta = await waitFor(client, 'delta', 'Lost')
  const why = await client.sandboxes.explain(delta.id)
  story.say(`holdfast explain delta: ${delta.status.message}`)
  story.check(
    'delta: Lost, and the volume that survives is named',
    why.survives.some((v) => v.claimName === 'workspace'),
  )
  await client.sandboxes.recover(delta.id)
  const recovered = await waitFor(client, 'delta', 'Running')
  story.check(
    'delta: recovered as a new instance of the same sandbox',
    recovered.id === delta.id && recovered.instance?.number === 2,
    recovered.instance?.name ?? '',
  )

  const gone = await until('epsilon is gone', 30_000, () => isGone(client, 'epsilon'))
  story.check('epsilon: the acknowledged delete was finished', gone)
  for (const name of NAMES) {
    const sum = (await run(client, name, 'sha256sum < /sandbox/data.bin')).trim()
    const lines = await countLines(client, name)
    story.check(
      `${name}: data unchanged, log goes on`,
      sum === before.sums[name] && lines > before.lines[name],
      `${sum.slice(0, 12)}, ${before.lines[name]} → ${lines} lines`,
    )
  }
}

async function cleanUp({ story, client, stateDir, engine }: Scene): Promise<void> {
  story.chapter('6. Everything is deleted, and nothing stays behind')
  const all = await client.sandboxes.list()
  for (const s of all) await client.sandboxes.remove(s.id)
  const { installation } = await client.info()
  const audit = await until('the audit is clean', 30_000, async () => {
    const a = await client.audit()
    return a.ok && Object.values(a.counts).every((n) => n === 0) ? a : null
  })
  const direct = await engine()
  try {
    const mine = (o: { labels: Readonly<Record<string, string>> }): boolean =>
      o.labels['holdfast.dev/installation'] === installation
    const instances = (await direct.listInstances(CALL)).filter(mine).length
    const volumes = (await direct.listVolumes(CALL)).filter(mine).length
    story.check(
      `${instances} instances, ${volumes} volumes, ${mounts(stateDir)} mounts, ${audit.counts['openSteps'] ?? 0} open steps`,
      instances + volumes + mounts(stateDir) + (audit.counts['openSteps'] ?? 0) === 0,
    )
  } finally {
    await direct.close()
  }
}

async function waitFor(client: Client, name: string, state: string): Promise<Sandbox> {
  let last = ''
  return until(`${name} is ${state}`, 30_000, async () => {
    const s = await client.sandboxes.get(await client.sandboxes.resolve(name))
    last = `${s.status.state}: ${s.status.message}`
    return s.status.state === state ? s : null
  }).catch((error: unknown) => {
    throw new Error(`${name} did not become ${state}; it is ${last}`, { cause: error })
  })
}

async function isGone(client: Client, name: string): Promise<boolean> {
  const all = await client.sandboxes.list()
  return all.every((s) => s.name !== name)
}

async function run(client: Client, name: string, script: string): Promise<string> {
  const result = await client.sandboxes.exec(await client.sandboxes.resolve(name), { command: script })
  if (result.exitCode !== 0)
    throw new Error(`in ${name}: ${script} ended with ${result.exitCode}: ${result.stderr}`)
  return result.stdout
}

async function openEngine(id: string, stateDir: string): Promise<Engine> {
  const clock = systemClock()
  if (id === 'docker') {
    const { createDockerEngine } = await import('../src/engines/docker/index.ts')
    return createDockerEngine({ id, host: `unix://${SOCKET}`, clock })
  }
  const { createLocalEngine, probeIsolation } = await import('../src/engines/local/index.ts')
  const isolation = (await probeIsolation()) === 'namespaces' ? 'namespaces' : 'none'
  return createLocalEngine({
    id: 'local',
    root: join(stateDir, 'local'),
    isolation,
    allowedHostPaths: [],
    clock,
    ids: systemIds(),
  })
}

/** Mounts of this demo's state directory that this machine still has. */
function mounts(stateDir: string): number {
  if (!existsSync('/proc/self/mountinfo')) return 0
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((l) => l.includes(stateDir)).length
}

interface Made {
  readonly engine: string
  readonly installation: string
}

/** Rejects when a person has seen enough. */
function interrupted(): Promise<never> {
  return new Promise((_, reject) => {
    for (const name of ['SIGINT', 'SIGTERM'] as const)
      process.once(name, () => reject(new Error(`interrupted (${name})`)))
  })
}

/** Nothing of the demo stays, however it ended: what the story did not delete is removed from the engine itself. */
async function leave(
  server: DemoServer | null,
  image: string | null,
  stateDir: string,
  made: Made | null,
): Promise<void> {
  const complain = (error: unknown): void => void process.stderr.write(`${String(error)}\n`)
  await server?.stop().catch(complain)
  if (made !== null) await sweepUp(made, stateDir).catch(complain)
  if (image !== null && image !== 'host') await removeDemoImage(SOCKET).catch(complain)
  rmSync(stateDir, { recursive: true, force: true })
}

async function sweepUp({ engine, installation }: Made, stateDir: string): Promise<void> {
  const direct = await openEngine(engine, stateDir)
  try {
    const mine = (o: { labels: Readonly<Record<string, string>> }): boolean =>
      o.labels['holdfast.dev/installation'] === installation
    for (const i of (await direct.listInstances(CALL)).filter(mine)) await direct.removeInstance(i.id, CALL)
    for (const v of (await direct.listVolumes(CALL)).filter(mine)) await direct.removeVolume(v.name, CALL)
  } finally {
    await direct.close()
  }
}

// The product's timers keep no process alive, and behind the server's back nothing else of this one does.
const alive = setInterval(() => undefined, 60_000)
const code = await main()
clearInterval(alive)
process.exit(code)
