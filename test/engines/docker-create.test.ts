import { stat } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { extract, pack } from 'tar-stream'
import type { Call, CreateInstance, CreateMount, Engine } from '../../src/engines/engine.ts'
import { LABEL } from '../../src/model/labels.ts'
import { rawDocker, rawJson } from '../support/docker-http.ts'
import { DOCKER_SOCKET, dockerEngine, dockerAbsent } from '../support/docker-subject.ts'
import {
  ensureTestImage,
  TEST_IMAGE,
  TEST_USER,
  TEST_VOLUME_IMAGE,
  TEST_VOLUME_PATH,
} from '../support/image.ts'
import { finish, refused, TEST_RUN_LABEL, until } from './conformance/rig.ts'
import { describeOn } from './describe-on.ts'

const call: Call = { limitMs: 60_000 }
const run = `docker-create-${process.pid}`
const labels = { [LABEL.installation]: run, [TEST_RUN_LABEL]: run }

describeOn('docker', await dockerAbsent())('what Docker makes of a request', () => {
  let engine: Engine
  let count = 0
  const undo: (() => Promise<unknown>)[] = []

  beforeAll(async () => {
    engine = dockerEngine(`unix://${DOCKER_SOCKET}`)
    await ensureTestImage(DOCKER_SOCKET)
  })
  afterEach(async () => {
    const errors: unknown[] = []
    for (const each of undo.splice(0).toReversed()) await each().catch((error: unknown) => errors.push(error))
    if (errors.length > 0) throw new AggregateError(errors, 'the test left something behind')
  })
  afterAll(() => engine.close())

  const request = (over: Partial<CreateInstance> = {}): CreateInstance => ({
    name: `hft-${run}-${(count += 1)}`,
    labels,
    image: TEST_IMAGE,
    entrypoint: [],
    env: {},
    limits: {},
    mounts: [],
    workingDir: null,
    user: null,
    hostname: 'create',
    ...over,
  })
  const create = async (over: Partial<CreateInstance> = {}): Promise<string> => {
    const { id } = await engine.createInstance(request(over), call)
    undo.push(() => engine.removeInstance(id, call))
    return id
  }
  const volume = async (): Promise<string> => {
    const name = `hft-${run}-v${(count += 1)}`
    await engine.createVolume({ name, labels, sizeBytes: null }, call)
    undo.push(() => engine.removeVolume(name, call))
    return name
  }
  const seeded = (name: string, path: string): CreateMount => ({
    path,
    source: { kind: 'volume', name },
    readOnly: false,
    seed: true,
  })
  const said = async (id: string, script: string): Promise<string> => {
    const done = await finish(await engine.exec(id, { command: ['sh', '-c', script], stdin: false }, call))
    return done.stdout.toString()
  }

  test('no capability, no new privilege, limits, an init, no restart and a capped log', async () => {
    const id = await create({
      limits: { cpuMillis: 250, memoryBytes: 32 * 1024 * 1024, pids: 20 },
      hostname: 'abc',
    })
    await engine.startInstance(id, call)
    const status = await said(id, 'cat /proc/self/status')
    expect(status).toMatch(/CapEff:\t0+\n/)
    expect(status).toMatch(/CapBnd:\t0+\n/)
    expect(status).toMatch(/NoNewPrivs:\t1\n/)
    expect(await said(id, 'cat /proc/1/comm')).toMatch(/init|tini/)
    const forks = await said(
      id,
      'for i in $(seq 30); do sleep 5 >/dev/null & done 2>/dev/null; ls /proc | grep -c "^[0-9]"',
    )
    expect(Number(forks.trim() === '' ? 0 : forks)).toBeLessThanOrEqual(20)
    const made = await rawJson<{ HostConfig: Record<string, unknown> }>(
      DOCKER_SOCKET,
      'GET',
      `/containers/${id}/json`,
    )
    expect(made.HostConfig).toMatchObject({
      NanoCpus: 250_000_000,
      Memory: 33_554_432,
      PidsLimit: 20,
      RestartPolicy: { Name: 'no' },
      LogConfig: { Type: 'json-file', Config: { 'max-size': '10m', 'max-file': '3' } },
      Privileged: false,
    })
  })

  test('a workload that needs more memory than its limit ends, and that is told', async () => {
    const eat = ['sh', '-c', 'x=$(head -c 64000000 /dev/zero | tr "\\0" x); echo ${#x}']
    const id = await create({ limits: { memoryBytes: 16 * 1024 * 1024 }, entrypoint: eat })
    await engine.startInstance(id, call)
    const facts = await until('the workload to end', async () => {
      const now = await engine.inspectInstance(id, call)
      return now?.state === 'stopped' ? now : undefined
    })
    expect(facts).toMatchObject({ oomKilled: true })
    expect(facts.exitCode).not.toBe(0)
  })

  test('a seed keeps owners and links, and is whole at the first sight of the instance', async () => {
    const image = await bigImage()
    const name = await volume()
    const wanted = request({ image, mounts: [seeded(name, '/big')] })
    const making = engine.createInstance(wanted, call)
    undo.push(async () => engine.removeInstance((await making).id, call))
    const first = await until(
      'the instance to be seen',
      async () => (await engine.inspectInstance(wanted.name, call)) ?? undefined,
    )
    const found = await entries(await engine.copyOut(first.id, '/big/.', call))
    expect([...found.keys()].filter((path) => path.endsWith('.bin')).length).toBe(BIG_FILES)
    expect([...found.values()].filter((f) => f.type === 'file').every((f) => f.size === BIG_FILE_BYTES)).toBe(
      true,
    )
    expect(found.get('last-link')).toMatchObject({ type: 'symlink', linkname: '0.bin', uid: TEST_USER })
    expect(found.get('0.bin')).toMatchObject({ uid: TEST_USER, mode: 0o600 })
    expect(await making).toEqual({ id: first.id })
  })

  test('a volume that has something in it is not seeded again', async () => {
    const name = await volume()
    const first = await create({ mounts: [seeded(name, '/sandbox')] })
    await engine.startInstance(first, call)
    await said(first, 'rm /sandbox/seed.txt; echo mine > /sandbox/mine')
    const second = await create({ mounts: [seeded(name, '/sandbox')] })
    await engine.startInstance(second, call)
    expect(await said(second, 'ls -A /sandbox')).toBe('link\nmine\n')
  })

  test('the creation time of a volume is not the time of the last change in it', async () => {
    const name = await volume()
    const before = await engine.inspectVolume(name, call)
    const id = await create({ mounts: [{ ...seeded(name, '/v'), seed: false }] })
    await engine.startInstance(id, call)
    await delay(1_100)
    await said(id, 'touch /v/file; mkdir /v/dir')
    expect(await engine.inspectVolume(name, call)).toEqual(before)
    expect((await engine.listVolumes(call)).find((v) => v.name === name)).toEqual(before)
  })

  test('a host path is mounted when it is there, and refused when it is not', async () => {
    const host = { path: '/host', readOnly: true, seed: false } as const
    const id = await create({ mounts: [{ ...host, source: { kind: 'host', path: '/usr/share/doc' } }] })
    expect((await engine.inspectInstance(id, call))?.mounts).toEqual([
      { path: '/host', volume: null, readOnly: true },
    ])
    const path = `/holdfast-nowhere-${process.pid}`
    const nowhere = request({ mounts: [{ ...host, source: { kind: 'host', path } }] })
    await refused(engine.createInstance(nowhere, call), 'invalid', 'none')
    await expect(stat(path)).rejects.toThrow(/ENOENT/)
  })

  test('a volume without a name goes with an instance that never ran, and stays after one that did', async () => {
    const anonymous = async (id: string): Promise<string> => {
      const facts = await engine.inspectInstance(id, call)
      return facts?.mounts.find((mount) => mount.path === TEST_VOLUME_PATH)?.volume ?? ''
    }
    const never = await create({ image: TEST_VOLUME_IMAGE })
    const empty = await anonymous(never)
    expect(empty).toMatch(/^[0-9a-f]{64}$/)
    await engine.removeInstance(never, call)
    expect(await engine.inspectVolume(empty, call)).toBeNull()

    const ran = await create({ image: TEST_VOLUME_IMAGE })
    const full = await anonymous(ran)
    undo.push(() => engine.removeVolume(full, call))
    await engine.startInstance(ran, call)
    await said(ran, `echo data > ${TEST_VOLUME_PATH}/file`)
    await engine.removeInstance(ran, call)
    expect(await engine.inspectVolume(full, call)).not.toBeNull()
    expect(await engine.volumeIsEmpty(full, call)).toBe(false)
  })

  test('a name is no proof of identity: only a full id is removed', async () => {
    const wanted = request()
    const { id } = await engine.createInstance(wanted, call)
    undo.push(() => engine.removeInstance(id, call))
    await refused(engine.removeInstance(wanted.name, call), 'invalid', 'none')
    await refused(engine.removeInstance(id.slice(0, 12), call), 'invalid', 'none')
    expect(await engine.inspectInstance(id.slice(0, 12), call)).toBeNull()
    expect(await engine.inspectInstance(wanted.name, call)).not.toBeNull()
  })

  test('a program that reads only some of its input ends with its output whole', async () => {
    const id = await create()
    await engine.startInstance(id, call)
    const stream = await engine.exec(id, { command: ['sh', '-c', 'head -c 5; echo .'], stdin: true }, call)
    const done = finish(stream)
    await stream.write(Buffer.alloc(4_000_000, 'abcdefgh')).catch(() => 'not all was taken')
    expect(await done).toMatchObject({ code: 0, stdout: Buffer.from('abcde.\n') })
  })

  test('a pause amid starting programs leaves an instance that can be looked at and thawed', async () => {
    const id = await create()
    await engine.startInstance(id, call)
    for (let round = 0; round < 5; round++) {
      const starting = Promise.allSettled(
        Array.from({ length: 4 }, () => engine.exec(id, { command: ['true'], stdin: false }, call)),
      )
      await delay(round * 12)
      await engine.pauseInstance(id, call)
      expect(await engine.inspectInstance(id, call)).toMatchObject({ state: 'running', paused: true })
      await refused(engine.exec(id, { command: ['true'], stdin: false }, call), 'conflict', 'none')
      // The engine also hears of the freeze from its runtime, a little late: a thaw before that is undone for a moment.
      await delay(500)
      await engine.unpauseInstance(id, call)
      for (const outcome of await starting) {
        if (outcome.status === 'rejected') throw outcome.reason
        expect((await finish(outcome.value)).code).toBe(0)
      }
    }
  })

  test('a user that the image has not is refused', async () => {
    const id = await create()
    await engine.startInstance(id, call)
    const asNobody = engine.exec(id, { command: ['id'], stdin: false, user: 'nobody-here' }, call)
    await refused(asNobody, ['invalid', 'failed', 'not-found'])
    const nowhere = engine.exec(id, { command: ['id'], stdin: false, workingDir: '/nowhere/at/all' }, call)
    await refused(nowhere, 'invalid', 'none')
  })

  const BIG_FILES = 60
  const BIG_FILE_BYTES = 1024 * 1024
  /** Large enough that its copy takes a while. */
  async function bigImage(): Promise<string> {
    const image = `holdfast-test-big-${process.pid}:1`
    const tar = pack()
    const own = { uid: TEST_USER, gid: TEST_USER }
    tar.entry({ name: 'big', type: 'directory', mode: 0o755 })
    for (let i = 0; i < BIG_FILES; i++)
      tar.entry({ name: `big/${i}.bin`, mode: 0o600, ...own }, Buffer.alloc(BIG_FILE_BYTES, `${i}`))
    tar.entry({ name: 'big/last-link', type: 'symlink', linkname: '0.bin', ...own })
    tar.finalize()
    const [repo, tag] = image.split(':')
    const path = `/images/create?fromSrc=-&repo=${repo}&tag=${tag}&changes=${encodeURIComponent('CMD ["none"]')}`
    const { status, text } = await rawDocker(DOCKER_SOCKET, 'POST', path, Readable.from(tar))
    if (status >= 300) throw new Error(text)
    undo.push(() => rawDocker(DOCKER_SOCKET, 'DELETE', `/images/${image}?force=true`))
    return image
  }
})

interface Entry {
  readonly type: string
  readonly size: number
  readonly uid: number
  readonly mode: number
  readonly linkname: string | null
}

async function entries(tar: Readable): Promise<Map<string, Entry>> {
  const out = new Map<string, Entry>()
  const unpacked = tar.pipe(extract())
  tar.on('error', (error) => unpacked.destroy(error))
  for await (const entry of unpacked) {
    entry.resume()
    const { name, type, size, uid, mode, linkname } = entry.header
    out.set(name.replace(/^\.?\/|\/$/g, ''), {
      type: type ?? 'file',
      size,
      uid,
      mode: mode & 0o7777,
      linkname: linkname ?? null,
    })
  }
  return out
}
