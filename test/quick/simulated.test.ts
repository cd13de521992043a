import { describe, expect, test } from 'vitest'
import type { Engine, EngineEvent } from '../../src/engines/engine.ts'
import { type Behind, createBehind } from '../../src/engines/simulated/behind.ts'
import {
  createSimulatedEngine,
  type SimulatedEngine,
  type SimulatedOptions,
} from '../../src/engines/simulated/engine.ts'
import { type CallName, type Fault, OK } from '../../src/engines/simulated/faults.ts'
import { createWorld, type World } from '../../src/engines/simulated/world.ts'
import type { Clock } from '../../src/model/clock.ts'
import { EngineError, sameRun } from '../../src/model/facts.ts'
import { LABEL } from '../../src/model/labels.ts'
import { type Commands, conformance } from '../engines/conformance.ts'
import { refused } from '../engines/conformance/rig.ts'
import { createVirtualClock, type VirtualClock } from '../support/virtual-clock.ts'

const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(ms, fn) {
    const timer = setTimeout(fn, ms)
    timer.unref()
    return () => clearTimeout(timer)
  },
}

const simCommands: Commands = {
  run: ['sim', 'run'],
  exit: (code) => ['sim', 'exit', String(code)],
  killSelf: ['sim', 'kill-self'],
  lateTerm: ['sim', 'late-term'],
  ignoreTerm: ['sim', 'ignore-term'],
  ticks: ['sim', 'ticks'],
  say: (out, err) => ['sim', 'say', out, err],
  twoLines: ['sim', 'two-lines'],
  show: (variable) => ['sim', 'show', variable],
  write: (path, text) => ['sim', 'write', path, text],
  read: (path) => ['sim', 'read', path],
  cat: ['sim', 'cat'],
  flood: (bytes) => ['sim', 'flood', String(bytes)],
  terminal: ['sim', 'terminal'],
  echoServer: (port) => ['sim', 'echo', String(port)],
  missing: ['sim', 'no-such-verb'],
}

const SEED = {
  '/seed/hello.txt': { text: 'hello\n', mode: 0o640 },
  '/seed/run.sh': { text: 'exit 0\n', mode: 0o755 },
  '/seed/link': { link: 'hello.txt' },
  '/seed/sub/deep.txt': 'deep\n',
}
const IMAGES = { sim: {}, seeded: { files: SEED }, declares: { volumes: ['/var/lib/declared'] } }

conformance('simulated', async () => {
  const world = createWorld({ clock: realClock, images: IMAGES })
  const behind = createBehind(world)
  return {
    engine: createSimulatedEngine(world),
    image: 'sim',
    missingImage: 'none',
    commands: simCommands,
    seeded: { image: 'seeded', path: '/seed' },
    hostDir: '/srv/host',
    declares: { image: 'declares', path: '/var/lib/declared' },
    removeBehind: async (id) => behind.remove(id),
    killBehind: async (id) => behind.kill(id),
    cleanup: async () => expect(world.dump()).toEqual({ containers: [], volumes: [] }),
  }
})

const call = { limitMs: 10_000 }
const labels = { [LABEL.installation]: 'test' }
const request = (name: string, over: object = {}): Parameters<Engine['createInstance']>[0] => ({
  name,
  labels,
  image: 'sim',
  entrypoint: ['sim', 'run'],
  env: {},
  limits: {},
  mounts: [],
  workingDir: null,
  user: null,
  hostname: name,
  ...over,
})

interface Sim {
  readonly clock: VirtualClock
  readonly world: World
  readonly behind: Behind
  readonly engine: (options?: SimulatedOptions) => SimulatedEngine
  /** A handle on which this fault befalls the next call of that method. */
  readonly faulty: (name: CallName, fault: Fault) => SimulatedEngine
}

function sim(): Sim {
  const clock = createVirtualClock()
  const world = createWorld({ clock, images: IMAGES })
  return {
    clock,
    world,
    behind: createBehind(world),
    engine: (options) => createSimulatedEngine(world, options),
    faulty(name, fault) {
      let used = false
      const before = (called: CallName): Fault => {
        if (called !== name || used) return OK
        used = true
        return fault
      }
      return createSimulatedEngine(world, { faults: { before } })
    },
  }
}

const seeded = (volume: string): object => ({
  image: 'seeded',
  mounts: [{ path: '/seed', source: { kind: 'volume', name: volume }, readOnly: false, seed: true }],
})

describe('virtual time', () => {
  test('nothing moves by itself, and what is due happens in order', async () => {
    const { clock, engine } = sim()
    const { id } = await engine().createInstance(
      request('a', { entrypoint: ['sim', 'exit', '3', 'after', '500'] }),
      call,
    )
    await engine().startInstance(id, call)
    await clock.advance(499)
    expect(await engine().inspectInstance(id, call)).toMatchObject({ state: 'running' })
    const started = clock.now() - 499
    await clock.advance(1)
    expect(await engine().inspectInstance(id, call)).toMatchObject({
      state: 'stopped',
      exitCode: 3,
      startedAt: started,
      finishedAt: started + 500,
    })
  })

  test('timers run in order of time and then of making, also those that timers make', async () => {
    const clock = createVirtualClock(1_000)
    const seen: string[] = []
    const note = (what: string) => () => void seen.push(`${what}@${clock.now()}`)
    clock.after(20, note('b'))
    clock.after(10, () => {
      note('a')()
      clock.after(5, note('nested'))
      void Promise.resolve().then(note('promise'))
    })
    clock.after(20, note('c'))
    const cancel = clock.after(15, note('cancelled'))
    cancel()
    await clock.advance(30)
    expect(seen).toEqual(['a@1010', 'promise@1010', 'nested@1015', 'b@1020', 'c@1020'])
    expect(clock.now()).toBe(1_030)
  })

  test('a jump of the wall clock moves no timer', async () => {
    const clock = createVirtualClock(1_000)
    let ran = false
    clock.after(100, () => (ran = true))
    clock.jump(-500)
    expect([clock.now(), clock.monotonic()]).toEqual([500, 0])
    clock.jump(3_600_000)
    await clock.settle()
    expect(ran).toBe(false)
    await clock.advance(100)
    expect(ran).toBe(true)
  })

  test('waits have a limit and say what they waited for', async () => {
    const clock = createVirtualClock()
    const again = (): void => void clock.after(1_000, again)
    again()
    await expect(clock.runUntilIdle(10_000)).rejects.toThrow('no timer left: not so after 10000 ms')
    await expect(clock.runUntil('rain', () => false, 5_000)).rejects.toThrow('rain')
  })
})

describe('faults of calls', () => {
  test('error-before does nothing and is sure of it', async () => {
    const { world, faulty } = sim()
    await refused(
      faulty('createInstance', { kind: 'error-before' }).createInstance(request('a'), call),
      'unreachable',
      'none',
    )
    expect(world.dump().containers).toEqual([])
    expect(world.mutations()).toBe(0)
  })

  test('error-after does it and loses the answer', async () => {
    const { world, faulty } = sim()
    await refused(
      faulty('createInstance', { kind: 'error-after' }).createInstance(request('a'), call),
      'timeout',
      'unknown',
    )
    expect(world.find('a')).not.toBeNull()
    expect(world.effects).toEqual(new Map([['createInstance', 1]]))
  })

  test('late times out now and is done after its time, even when its control plane is gone', async () => {
    const { clock, world, faulty } = sim()
    const engine = faulty('createInstance', { kind: 'late', afterMs: 5_000 })
    await refused(engine.createInstance(request('a'), call), 'timeout', 'unknown')
    engine.sever()
    await clock.advance(4_999)
    expect(world.find('a')).toBeNull()
    await clock.advance(1)
    expect(world.find('a')).not.toBeNull()
  })

  test('a late create under a name that was taken meanwhile makes no second', async () => {
    const { clock, world, engine, faulty } = sim()
    const late = faulty('createInstance', { kind: 'late', afterMs: 5_000 })
    await refused(late.createInstance(request('a'), call), 'timeout', 'unknown')
    const { id } = await engine().createInstance(request('a'), call)
    await clock.advance(10_000)
    expect([...world.containers.keys()]).toEqual([id])
  })

  test('hang ends with the limit of the call, in virtual time', async () => {
    const { clock, world, faulty } = sim()
    let settled = false
    const hanging = faulty('createInstance', { kind: 'hang' }).createInstance(request('a'), call)
    const checked = refused(hanging, 'timeout', 'unknown').then(() => (settled = true))
    await clock.advance(9_999)
    expect(settled).toBe(false)
    await clock.advance(1)
    await checked
    expect(world.dump().containers).toEqual([])
  })

  test('a torn create leaves its volume half seeded and no instance', async () => {
    const { world, engine, faulty } = sim()
    await engine().createVolume({ name: 'v', labels, sizeBytes: null }, call)
    await refused(
      faulty('createInstance', { kind: 'torn' }).createInstance(request('a', seeded('v')), call),
      'timeout',
      'unknown',
    )
    expect(world.find('a')).toBeNull()
    expect(await engine().volumeIsEmpty('v', call)).toBe(false)
    expect(Object.keys(world.volumeContent('v') ?? {})).toEqual(['/hello.txt'])
  })

  test.each(['before', 'after'] as const)('a crash %s the effect never settles', async (effect) => {
    const { clock, world, faulty } = sim()
    let settled = false
    const settle = (): void => void (settled = true)
    faulty('createInstance', { kind: 'crash', effect })
      .createInstance(request('a'), call)
      .then(settle, settle)
    await clock.settle()
    expect(world.find('a') !== null).toBe(effect === 'after')
    expect(settled).toBe(false)
  })

  test('a severed handle gives no answer, and the world goes on without it', async () => {
    const { clock, world, engine } = sim()
    const gone = engine()
    const { id } = await gone.createInstance(request('a', { entrypoint: ['sim', 'ignore-term'] }), call)
    await gone.startInstance(id, call)
    let settled = false
    const settle = (): void => void (settled = true)
    gone.stopInstance(id, 3_000, call).then(settle, settle)
    await clock.settle()
    gone.sever()
    gone.info(call).then(settle, settle)
    await clock.advance(60_000)
    expect(settled).toBe(false)
    expect(world.find('a')).toMatchObject({ state: 'exited', exitCode: 137 })
  })

  test('lists can be stale or partial, inspections never', async () => {
    const { engine } = sim()
    let fault: Fault = OK
    const handle = engine({ faults: { before: (name) => (name === 'listInstances' ? fault : OK) } })
    await handle.createInstance(request('a'), call)
    const names = async (): Promise<string[]> => (await handle.listInstances(call)).map((f) => f.name)
    expect(await names()).toEqual(['a'])
    await handle.createInstance(request('b'), call)
    fault = { kind: 'stale-list' }
    expect(await names()).toEqual(['a'])
    fault = { kind: 'partial-list', keep: (f) => f.name !== 'a' }
    expect(await names()).toEqual(['b'])
    expect(await handle.inspectInstance('a', call)).not.toBeNull()
  })

  test('what finds nothing to do is a call and no effect', async () => {
    const { world, engine } = sim()
    const handle = engine()
    const { id } = await handle.createInstance(request('a'), call)
    await handle.startInstance(id, call)
    const before = world.mutations()
    await handle.startInstance(id, call)
    await handle.removeVolume('never', call)
    await handle.removeInstance('never', call)
    expect(world.mutations()).toBe(before)
    expect(world.calls.get('startInstance')).toBe(2)
  })
})

describe('faults of events', () => {
  const watch = async (
    fate: (event: EngineEvent) => 'deliver' | 'drop' | 'double' | 'hold',
  ): Promise<string[]> => {
    const { clock, engine } = sim()
    const abort = new AbortController()
    const seen: string[] = []
    const handle = engine({ faults: { before: () => OK, event: fate } })
    const reading = (async () => {
      for await (const e of handle.events(abort.signal)) seen.push(e.kind === 'resync' ? 'resync' : e.name)
    })()
    for (const name of ['a', 'b', 'c']) await handle.createInstance(request(name), call)
    await clock.settle()
    abort.abort()
    await reading
    return seen
  }
  const when = (name: string, fate: 'drop' | 'double' | 'hold') => (event: EngineEvent) =>
    event.kind !== 'resync' && event.name === name ? fate : ('deliver' as const)

  test.each([
    ['drop', ['a', 'c']],
    ['double', ['a', 'b', 'b', 'c']],
    ['hold', ['a', 'c', 'b']],
  ] as const)('%s', async (fate, expected) => {
    expect(await watch(when('b', fate))).toEqual(expected)
  })
})

describe('the daemon', () => {
  const running = async (): Promise<Sim & { id: string; handle: Engine }> => {
    const all = sim()
    const handle = all.engine()
    const { id } = await handle.createInstance(request('a'), call)
    await handle.startInstance(id, call)
    await all.clock.advance(1_000)
    return { ...all, id, handle }
  }

  test('while it is down every call is unreachable without effect, and what waits is in doubt', async () => {
    const { clock, behind, handle } = await running()
    const { id } = await handle.createInstance(request('b', { entrypoint: ['sim', 'ignore-term'] }), call)
    await handle.startInstance(id, call)
    const stopping = refused(handle.stopInstance(id, 5_000, call), 'unreachable', 'unknown')
    await clock.settle()
    behind.killDaemon()
    await stopping
    await refused(handle.inspectInstance('a', call), 'unreachable', 'none')
    await refused(handle.createVolume({ name: 'v', labels, sizeBytes: null }, call), 'unreachable', 'none')
  })

  test('stopped in order it ends containers and tells of it, and the next run is another', async () => {
    const { behind, handle, id } = await running()
    const before = await handle.info(call)
    behind.stopDaemon({ code: 143 })
    behind.startDaemon()
    const facts = await handle.inspectInstance(id, call)
    expect(facts).toMatchObject({ state: 'stopped', exitCode: 143 })
    const after = await handle.info(call)
    expect(sameRun(before.run, after.run)).toBe(false)
    expect(after.run.boot).toBe(before.run.boot)
    if (facts !== null) expect(await handle.exitCause(facts, call)).toBeNull()
  })

  test('killed with live-restore it leaves them running, the same run and start', async () => {
    const { behind, handle, id } = await running()
    const before = await handle.inspectInstance(id, call)
    behind.killDaemon()
    behind.startDaemon({ liveRestore: true })
    expect(await handle.inspectInstance(id, call)).toEqual(before)
  })

  test('killed without it, the next one ends what it finds', async () => {
    const { behind, handle, id, clock } = await running()
    behind.killDaemon()
    await clock.advance(5_000)
    behind.startDaemon()
    expect(await handle.inspectInstance(id, call)).toMatchObject({
      state: 'stopped',
      exitCode: 137,
      finishedAt: clock.now(),
    })
  })

  test('a power cut ends everything unseen under another boot, and data stays', async () => {
    const { behind, handle, id, world } = await running()
    behind.createVolume('v', labels, { '/f': 'kept' })
    const before = await handle.info(call)
    behind.cutPower()
    behind.startDaemon({ liveRestore: true })
    expect(await handle.inspectInstance(id, call)).toMatchObject({ state: 'stopped', exitCode: 255 })
    expect((await handle.info(call)).run.boot).not.toBe(before.run.boot)
    expect(world.volumeContent('v')).toEqual({ '/f': 'kept' })
  })

  test('after a gap the event stream says to look at everything', async () => {
    const { behind, handle, clock } = await running()
    const abort = new AbortController()
    const kinds: string[] = []
    const reading = (async () => {
      for await (const event of handle.events(abort.signal)) kinds.push(event.kind)
    })()
    behind.killDaemon()
    behind.startDaemon({ liveRestore: true })
    await clock.settle()
    abort.abort()
    await reading
    expect(kinds).toEqual(['resync'])
  })

  test('a zombie is said to run and cannot be ended before the next daemon', async () => {
    const { behind, handle, id } = await running()
    behind.makeZombie(id)
    expect(await handle.inspectInstance(id, call)).toMatchObject({ state: 'running' })
    await refused(handle.exec(id, { command: ['true'], stdin: false }, call), 'failed')
    await refused(handle.stopInstance(id, 100, call), 'failed', 'unknown')
    await refused(handle.removeInstance(id, call), 'failed', 'unknown')
    behind.killDaemon()
    behind.startDaemon()
    await handle.removeInstance(id, call)
    expect(await handle.inspectInstance(id, call)).toBeNull()
  })

  test('containers can be forgotten while volumes stay', async () => {
    const { behind, handle, world } = await running()
    behind.createVolume('v', labels)
    behind.forgetContainers()
    expect(await handle.listInstances(call)).toEqual([])
    expect([...world.volumes.keys()]).toEqual(['v'])
  })
})

describe('the world', () => {
  test('the same seed and history give the same world, ids too', async () => {
    const history = async (): Promise<unknown> => {
      const { world, engine } = sim()
      const { id } = await engine().createInstance(request('a', seeded('v')), call)
      return { id, dump: world.dump() }
    }
    expect(await history()).toEqual(await history())
  })

  test('a declared volume that no mount covers is made anonymously and stays behind, as engines do', async () => {
    const { world, engine } = sim()
    const { id } = await engine().createInstance(request('a', { image: 'declares' }), call)
    await engine().removeInstance(id, call)
    expect([...world.volumes.values()].map((v) => v.labels)).toEqual([{}])
  })

  test("an image's labels come along to what is made of it", async () => {
    const { world, engine } = sim()
    world.addImage('committed', { labels: { ...labels, [LABEL.name]: 'elsewhere' } })
    await engine().createInstance(request('a', { image: 'committed', labels: {} }), call)
    expect((await engine().listInstances(call))[0]?.labels[LABEL.name]).toBe('elsewhere')
  })

  test('workloads write to their volumes, and rows of verbs end at the first failure', async () => {
    const { clock, world, behind, engine } = sim()
    behind.createVolume('v')
    const mounts = [{ path: '/d', source: { kind: 'volume', name: 'v' }, readOnly: false, seed: false }]
    const entrypoint = [
      'sim',
      'append',
      '/d/log',
      'up;',
      'then',
      'exit',
      '4',
      'then',
      'append',
      '/d/log',
      'never',
    ]
    const { id } = await engine().createInstance(request('a', { mounts, entrypoint }), call)
    for (let i = 0; i < 2; i++) {
      await engine().startInstance(id, call)
      await clock.settle()
    }
    expect(world.volumeContent('v')).toEqual({ '/log': 'up;up;' })
    expect(world.find('a')).toMatchObject({ state: 'exited', exitCode: 4 })
  })

  test('a pull brings what the registry has, and a vanished image is missing again', async () => {
    const { world, behind, engine } = sim()
    world.addImage('remote', {}, 'registry')
    await refused(engine().createInstance(request('a', { image: 'remote' }), call), 'image-missing', 'none')
    await engine().pullImage('remote', () => undefined, call)
    await engine().createInstance(request('a', { image: 'remote' }), call)
    behind.removeImage('remote')
    expect(await engine().inspectImage('remote', call)).toBeNull()
  })

  test('every ability can be taken away by name', async () => {
    const { engine } = sim()
    const handle = engine({ capabilities: { pause: false, tty: false, dial: false, pull: false } })
    const { id } = await handle.createInstance(request('a'), call)
    await handle.startInstance(id, call)
    const refusals = [
      handle.pauseInstance(id, call),
      handle.unpauseInstance(id, call),
      handle.exec(id, { command: ['true'], stdin: false, tty: { columns: 80, rows: 24 } }, call),
      handle.dial(id, 80, call),
      handle.pullImage('sim', () => undefined, call),
    ]
    for (const refusal of refusals)
      expect(await refused(refusal, 'unsupported', 'none')).toBeInstanceOf(EngineError)
  })
})
