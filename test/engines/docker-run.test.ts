import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Call, Engine, EngineEvent } from '../../src/engines/engine.ts'
import { type InstanceFacts, sameRun } from '../../src/model/facts.ts'
import { LABEL } from '../../src/model/labels.ts'
import { type PrivateDaemon, startPrivateDaemon } from '../support/docker-daemon.ts'
import { rawDocker } from '../support/docker-http.ts'
import { dockerEngine, programsMissing } from '../support/docker-subject.ts'
import { ensureTestImage, TEST_IMAGE } from '../support/image.ts'
import { refused, until } from './conformance/rig.ts'
import { describeOn } from './describe-on.ts'

const call: Call = { limitMs: 60_000 }
const missing = programsMissing('dockerd', 'ip', 'unshare')
const onDocker = describeOn('docker', missing)

interface Bench {
  readonly daemon: PrivateDaemon
  readonly engine: Engine
  readonly create: (name: string, entrypoint?: readonly string[]) => Promise<string>
  readonly facts: (id: string) => Promise<InstanceFacts>
}

/** Everything is on the daemon of its own, whose destruction removes it. */
async function bench(options: Parameters<typeof startPrivateDaemon>[0]): Promise<Bench> {
  const daemon = await startPrivateDaemon(options)
  await ensureTestImage(daemon.socketPath)
  const engine = dockerEngine(daemon.host)
  return {
    daemon,
    engine,
    async create(name, entrypoint = []) {
      const { id } = await engine.createInstance(
        {
          name,
          labels: { [LABEL.installation]: 'run-test' },
          image: TEST_IMAGE,
          entrypoint,
          env: {},
          limits: {},
          mounts: [],
          workingDir: null,
          user: null,
          hostname: 'run',
        },
        call,
      )
      await engine.startInstance(id, call)
      return id
    },
    async facts(id) {
      const found = await engine.inspectInstance(id, call)
      if (found === null) throw new Error(`${id} is absent`)
      return found
    },
  }
}

const closing = async (b: Bench | undefined): Promise<void> => {
  await b?.engine.close()
  await b?.daemon.destroy()
}

onDocker('the run of a daemon that ends its containers with it', () => {
  let b: Bench | undefined
  beforeAll(async () => void (b = await bench({})))
  afterAll(() => closing(b))

  test.each(['TERM', 'KILL', 'power-cut'] as const)(
    'is another one after %s, and what ran has ended',
    async (how) => {
      const { daemon, engine, create, facts } = b as Bench
      const id = await create(`hf-${how.toLowerCase()}`)
      const before = await facts(id)
      expect(before.state).toBe('running')
      expect(before.run.engine).toBeTruthy()
      expect(before.run.boot).toMatch(/^[0-9a-f-]{36}$/)
      expect(sameRun(before.run, (await engine.info(call)).run)).toBe(true)

      await daemon.stop(how)
      await refused(engine.inspectInstance(id, call), 'unreachable', 'none')
      await refused(engine.startInstance(id, call), 'unreachable', 'none')
      await daemon.start()

      const after = await until('the container to be seen as ended', async () => {
        const now = await facts(id)
        return now.state === 'stopped' ? now : undefined
      })
      expect(sameRun(before.run, after.run)).toBe(false)
      expect(after.run.boot).toBe(before.run.boot)
      expect(after).toMatchObject({ id, startedAt: before.startedAt })
      expect(await engine.exitCause(after, call), 'the memory of events went with the daemon').toBeNull()
      await engine.startInstance(id, call)
      expect((await facts(id)).state).toBe('running')
    },
  )

  test('is the same as long as the daemon is', async () => {
    const { engine } = b as Bench
    const first = (await engine.info(call)).run
    await delay(1_100)
    expect((await engine.info(call)).run).toEqual(first)
  })

  test('events go on after a restart, with a resync for what was missed', async () => {
    const { daemon, engine, create } = b as Bench
    const abort = new AbortController()
    const seen: EngineEvent[] = []
    const reading = (async () => {
      for await (const event of engine.events(abort.signal)) seen.push(event)
    })()
    try {
      let count = 0
      const hinted = async (): Promise<true | undefined> => {
        const name = `hf-hint-${(count += 1)}-${seen.length}`
        const id = await create(name)
        await engine.removeInstance(id, call)
        return seen.some((e) => e.kind === 'instance' && e.name.startsWith('hf-hint-')) || undefined
      }
      await until('the first events', hinted)
      expect(seen.some((e) => e.kind === 'resync')).toBe(false)
      await daemon.stop('KILL')
      await daemon.start()
      await until('the resync', () => seen.some((e) => e.kind === 'resync') || undefined)
      seen.length = 0
      await until('events after it', hinted)
    } finally {
      abort.abort()
      await reading
    }
  })
})

onDocker('the run of a daemon with live restore', () => {
  let b: Bench | undefined
  beforeAll(async () => void (b = await bench({ liveRestore: true })))
  afterAll(() => closing(b))

  test.each(['TERM', 'KILL'] as const)('is the same one after %s, because what ran goes on', async (how) => {
    const { daemon, create, facts } = b as Bench
    const id = await create(`hf-${how.toLowerCase()}`)
    const before = await facts(id)
    await daemon.stop(how)
    await daemon.start()
    const after = await facts(id)
    expect(after).toMatchObject({ state: 'running', startedAt: before.startedAt })
    expect(sameRun(before.run, after.run)).toBe(true)
  })

  test('is another one after a power cut, which no container survives', async () => {
    const { daemon, create, facts } = b as Bench
    const id = await create('hf-power')
    const before = await facts(id)
    await daemon.stop('power-cut')
    await daemon.start()
    const after = await facts(id)
    expect(after.state).toBe('stopped')
    expect(sameRun(before.run, after.run)).toBe(false)
  })
})

onDocker('the run of a daemon without a bridge', () => {
  let b: Bench | undefined
  beforeAll(async () => void (b = await bench({ bridge: 'none' })))
  afterAll(() => closing(b))

  test('is told by its socket, which it makes anew', async () => {
    const { daemon, engine } = b as Bench
    const networks = await rawDocker(daemon.socketPath, 'GET', '/networks/bridge')
    expect(networks.status).toBe(404)
    const before = (await engine.info(call)).run
    expect(before.engine).toMatch(/^sock:/)
    expect((await engine.info(call)).run).toEqual(before)
    await daemon.stop('KILL')
    await daemon.start()
    expect(sameRun(before, (await engine.info(call)).run)).toBe(false)
  })
})
