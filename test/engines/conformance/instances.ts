import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { LABEL } from '../../../src/model/labels.ts'
import { refused, type Rig, TEST_RUN_LABEL } from './rig.ts'

/** How far the engine's clock may be from ours before its times are nonsense, milliseconds. */
const CLOCK_SLACK_MS = 120_000

export function instanceTests(rig: Rig): void {
  describe('instances', () => {
    lifecycle(rig)
    endings(rig)
    presence(rig)
    origins(rig)
    processes(rig)
    pausing(rig)
  })
}

function lifecycle(rig: Rig): void {
  test('a created instance is found by name and by id, labelled and not started', async () => {
    const { id, name } = await rig.create()
    for (const key of [id, name]) {
      const facts = await rig.facts(key)
      expect(facts).toMatchObject({
        id,
        name,
        state: 'stopped',
        paused: false,
        startedAt: null,
        oomKilled: false,
      })
      expect(facts.labels).toMatchObject(rig.labels())
      expect(Math.abs(facts.createdAt - Date.now())).toBeLessThan(CLOCK_SLACK_MS)
    }
  })

  test('a taken name is a conflict without effect, and its holder is untouched', async () => {
    const { id, name } = await rig.running()
    const before = await rig.facts(id)
    const again = rig.request({ name, labels: { ...rig.labels(), [LABEL.uid]: 'another' } })
    await refused(rig.engine.createInstance(again, rig.call()), 'conflict', 'none')
    expect(await rig.facts(name)).toEqual(before)
  })

  test('a started instance runs, and starting it again changes nothing', async () => {
    const { id } = await rig.create()
    await rig.engine.startInstance(id, rig.call())
    const started = await rig.facts(id)
    expect(started).toMatchObject({ state: 'running', paused: false })
    expect(started.startedAt).toBeGreaterThanOrEqual(started.createdAt)
    await rig.engine.startInstance(id, rig.call())
    expect(await rig.facts(id)).toMatchObject({ state: 'running', startedAt: started.startedAt })
  })

  test('a restarted instance keeps its id and its writable layer, and has a later start time', async () => {
    const { id } = await rig.running()
    const file = `${rig.scratch}/${rig.name('kept')}`
    const first = await rig.facts(id)
    expect(await rig.exec(id, rig.commands.write(file, 'kept'))).toMatchObject({ code: 0 })
    await rig.engine.stopInstance(id, 5_000, rig.call())
    await rig.engine.startInstance(id, rig.call())
    const second = await rig.facts(id)
    expect(second.state).toBe('running')
    expect(second.startedAt).toBeGreaterThan(first.startedAt ?? Infinity)
    expect((await rig.exec(id, rig.commands.read(file))).stdout.toString()).toBe('kept')
  })

  test('two starts at once leave one running instance', async () => {
    const { id } = await rig.create()
    await Promise.all([rig.engine.startInstance(id, rig.call()), rig.engine.startInstance(id, rig.call())])
    expect((await rig.facts(id)).state).toBe('running')
  })

  test('of two creations of one name at once, one is refused and one remains', async () => {
    const request = rig.request()
    const outcomes = await Promise.allSettled([
      rig.create({ name: request.name }),
      rig.engine.createInstance(request, rig.call()),
    ])
    expect(outcomes.map((o) => o.status).toSorted()).toEqual(['fulfilled', 'rejected'])
    const made = outcomes.find((o) => o.status === 'fulfilled')
    expect((await rig.facts(request.name)).id).toBe(made?.value.id)
  })
}

function endings(rig: Rig): void {
  test.each([0, 3, 137, 143, 255])('exit status %i is told, with the time of the end', async (code) => {
    const { id } = await rig.running({ entrypoint: rig.commands.exit(code) })
    const facts = await rig.ended(id)
    expect(facts).toMatchObject({ exitCode: code, oomKilled: false, paused: false })
    expect(facts.finishedAt).toBeGreaterThanOrEqual(facts.startedAt ?? Infinity)
    expect(await rig.engine.exitCause(facts, rig.call()), 'its own end').not.toBe('external')
  })

  test('a workload that ends by a signal has 128+n', async () => {
    const { id } = await rig.running({ entrypoint: rig.commands.killSelf })
    expect((await rig.ended(id)).exitCode).toBe(137)
  })

  test('stop lets a workload finish within its grace', async () => {
    const { id } = await rig.running({ entrypoint: rig.commands.lateTerm })
    await rig.said(id, 'ready')
    await rig.engine.stopInstance(id, 20_000, rig.call())
    const facts = await rig.facts(id)
    expect(facts).toMatchObject({ state: 'stopped', exitCode: 7 })
    expect((await rig.logs(id)).stdout).toContain('finished')
    expect(await rig.engine.exitCause(facts, rig.call()), 'a stop through the engine').not.toBe('own')
  })

  test('stop kills a workload that ignores it after the grace', async () => {
    const { id } = await rig.running({ entrypoint: rig.commands.ignoreTerm })
    await rig.said(id, 'ready')
    await rig.engine.stopInstance(id, 1_000, rig.call())
    expect(await rig.facts(id)).toMatchObject({ state: 'stopped', exitCode: 137 })
  })

  test('stopping what is stopped, or was never started, succeeds and changes nothing', async () => {
    const never = await rig.create()
    await rig.engine.stopInstance(never.id, 1_000, rig.call())
    expect(await rig.facts(never.id)).toMatchObject({ state: 'stopped', startedAt: null })
    const ended = await rig.running({ entrypoint: rig.commands.exit(3) })
    const before = await rig.ended(ended.id)
    await rig.engine.stopInstance(ended.id, 1_000, rig.call())
    expect(await rig.facts(ended.id)).toEqual(before)
  })

  test('an instance killed behind our back is stopped, and not by its own doing', async () => {
    const { id } = await rig.running()
    await rig.subject.killBehind(id)
    const facts = await rig.ended(id)
    expect(facts.exitCode).toBe(137)
    expect(await rig.engine.exitCause(facts, rig.call())).not.toBe('own')
  })
}

function presence(rig: Rig): void {
  test('what never was is null by inspect, and its removal succeeds', async () => {
    const name = rig.name('never')
    expect(await rig.engine.inspectInstance(name, rig.call())).toBeNull()
    const { id } = await rig.create()
    await rig.engine.removeInstance(id, rig.call())
    expect(await rig.engine.inspectInstance(id, rig.call())).toBeNull()
    await rig.engine.removeInstance(id, rig.call())
  })

  test('a running instance is removed by id, and its name is free again', async () => {
    const { id, name } = await rig.running()
    await rig.engine.removeInstance(id, rig.call())
    expect(await rig.engine.inspectInstance(name, rig.call())).toBeNull()
    const next = await rig.create({ name })
    expect(next.id).not.toBe(id)
    expect((await rig.facts(name)).startedAt).toBeNull()
  })

  test('an instance removed behind our back is absent, and every change to it is refused without effect', async () => {
    const { id, name } = await rig.running()
    await rig.subject.removeBehind(id)
    expect(await rig.engine.inspectInstance(name, rig.call())).toBeNull()
    await refused(rig.engine.startInstance(id, rig.call()), 'not-found', 'none')
    await refused(rig.engine.stopInstance(id, 1_000, rig.call()), 'not-found', 'none')
    await refused(
      rig.engine.exec(id, { command: rig.commands.exit(0), stdin: false }, rig.call()),
      'not-found',
      'none',
    )
    await rig.engine.removeInstance(id, rig.call())
  })

  test('the list holds all of ours, running or not, with the same facts, and nothing unlabelled', async () => {
    const created = await rig.create()
    const running = await rig.running()
    const ended = await rig.running({ entrypoint: rig.commands.exit(3) })
    const facts = await rig.ended(ended.id)
    const unlabelled = await rig.create({ labels: { [TEST_RUN_LABEL]: 'unlabelled' } })
    const all = await rig.engine.listInstances(rig.call())
    const byId = new Map(all.map((f) => [f.id, f]))
    expect(byId.size).toBe(all.length)
    expect(byId.get(created.id)).toMatchObject({ name: created.name, state: 'stopped', startedAt: null })
    expect(byId.get(running.id)).toEqual(await rig.facts(running.id))
    expect(byId.get(ended.id)).toEqual(facts)
    expect(byId.has(unlabelled.id)).toBe(false)
  })

  test('a missing image is refused without effect', async () => {
    const request = rig.request({ image: rig.subject.missingImage })
    await refused(rig.engine.createInstance(request, rig.call()), 'image-missing', 'none')
    expect(await rig.engine.inspectInstance(request.name, rig.call())).toBeNull()
  })
}

function origins(rig: Rig): void {
  test('what an instance was made from is told again, without what its image brought', async () => {
    const volume = await rig.volume()
    const request = rig.request({
      env: { HF_ONE: 'a=b', HF_TWO: '' },
      workingDir: rig.scratch,
      mounts: [
        { path: '/b', source: { kind: 'volume', name: volume }, readOnly: true, seed: false },
        { path: '/a', source: { kind: 'host', path: rig.subject.hostDir }, readOnly: false, seed: false },
      ],
      ...(rig.engine.capabilities.pidsLimit ? { limits: { pids: 64 } } : {}),
    })
    const { id, name } = await rig.create(request)
    const origin = await rig.engine.describeInstance(id, rig.call())
    expect(origin).toEqual({
      image: request.image,
      entrypoint: request.entrypoint,
      env: request.env,
      limits: request.limits,
      workingDir: rig.scratch,
      user: null,
      mounts: request.mounts.map(({ path, source, readOnly }) => ({ path, source, readOnly })),
      imageKnown: true,
    })
    await rig.engine.startInstance(id, rig.call())
    expect(await rig.engine.describeInstance(id, rig.call())).toEqual(origin)
    expect(await rig.engine.describeInstance(name, rig.call())).toEqual(origin)
  })

  test('what was left to the image stays left to it', async () => {
    const { id } = await rig.create({ entrypoint: [] })
    expect(await rig.engine.describeInstance(id, rig.call())).toMatchObject({
      entrypoint: [],
      env: {},
      workingDir: null,
      user: null,
      mounts: [],
    })
  })

  test('of what never was, nothing is told', async () => {
    expect(await rig.engine.describeInstance(rig.name('never'), rig.call())).toBeNull()
  })
}

function processes(rig: Rig): void {
  test('environment, working directory, user and host name reach the workload as they are', async () => {
    const value = `a b  $HOME 'q' "d" \\ é\nline`
    const { id } = await rig.running({
      entrypoint: rig.commands.show('HF_VALUE'),
      env: { HF_VALUE: value },
      workingDir: rig.scratch,
      hostname: 'conformance',
    })
    await rig.ended(id)
    const { stdout } = await rig.logs(id)
    expect(stdout.startsWith(`${value}\n${rig.scratch}\n`), stdout).toBe(true)
    if (rig.traits.isolated) expect(stdout.trimEnd().split('\n').at(-1)).toBe('conformance')
  })

  test('a workload runs as the user that was asked for, or the engine says that it cannot', async () => {
    const made = rig.create({ entrypoint: rig.commands.show('HF_NONE'), user: '65534' })
    const id = await made.then(
      async (m) => {
        await rig.engine.startInstance(m.id, rig.call())
        return m.id
      },
      () => null,
    )
    if (id === null) return void (await refused(made, 'unsupported', 'none'))
    await rig.ended(id)
    expect((await rig.logs(id)).stdout.split('\n')[2]).toBe('65534')
  })

  test('an entrypoint that does not exist is an error, or ends at once with 126 or 127 where an init starts it', async () => {
    const request = rig.request({ entrypoint: rig.commands.missing })
    const kinds = ['invalid', 'failed', 'not-found'] as const
    const made = await rig.create(request).catch((error: unknown) => error)
    if (made instanceof Error) return void (await refused(Promise.reject(made), kinds))
    const { id } = made as { id: string }
    const starting = rig.engine.startInstance(id, rig.call())
    const started = await starting.then(
      () => true,
      () => false,
    )
    if (started) expect([126, 127]).toContain((await rig.ended(id)).exitCode)
    else await refused(starting, kinds)
    expect((await rig.facts(id)).state).toBe('stopped')
  })
}

function pausing(rig: Rig): void {
  test('a paused workload makes no progress, keeps its start time and goes on after', async () => {
    const { id } = await rig.running({ entrypoint: rig.commands.ticks })
    await rig.said(id, 'tick')
    if (!rig.engine.capabilities.pause) {
      await refused(rig.engine.pauseInstance(id, rig.call()), 'unsupported', 'none')
      await refused(rig.engine.unpauseInstance(id, rig.call()), 'unsupported', 'none')
      return
    }
    const { startedAt } = await rig.facts(id)
    await rig.engine.pauseInstance(id, rig.call())
    expect(await rig.facts(id)).toMatchObject({ state: 'running', paused: true, startedAt })
    const before = (await rig.logs(id)).stdout
    await delay(800)
    expect((await rig.logs(id)).stdout).toBe(before)
    await rig.engine.unpauseInstance(id, rig.call())
    expect(await rig.facts(id)).toMatchObject({ state: 'running', paused: false, startedAt })
    await rig.said(id, `${before}tick`)
  })

  test('a paused instance can be stopped and removed', async () => {
    if (!rig.engine.capabilities.pause) return
    const stopped = await rig.running()
    await rig.engine.pauseInstance(stopped.id, rig.call())
    await rig.engine.stopInstance(stopped.id, 1_000, rig.call())
    expect(await rig.facts(stopped.id)).toMatchObject({ state: 'stopped', paused: false })
    const removed = await rig.running()
    await rig.engine.pauseInstance(removed.id, rig.call())
    await rig.engine.removeInstance(removed.id, rig.call())
    expect(await rig.engine.inspectInstance(removed.id, rig.call())).toBeNull()
  })
}
