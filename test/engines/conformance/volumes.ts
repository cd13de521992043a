import { describe, expect, test } from 'vitest'
import type { CreateMount } from '../../../src/engines/engine.ts'
import { LABEL } from '../../../src/model/labels.ts'
import { entries } from './copy.ts'
import { given, refused, type Rig, until } from './rig.ts'

const mount = (name: string, over: Partial<CreateMount> = {}): CreateMount => ({
  path: '/data',
  source: { kind: 'volume', name },
  readOnly: false,
  seed: false,
  ...over,
})

const seed = (name: string, path: string): CreateMount => mount(name, { path, seed: true })

export function volumeTests(rig: Rig): void {
  describe('volumes', () => {
    objects(rig)
    images(rig)
    if (rig.traits.isolated) mounting(rig)
    if (rig.traits.isolated && rig.traits.seededImage) seeding(rig)
  })
}

function objects(rig: Rig): void {
  test('creation is idempotent, and the labels and the time are those of the first', async () => {
    const name = await rig.volume()
    const first = await rig.engine.inspectVolume(name, rig.call())
    expect(first).toMatchObject({ name, labels: rig.labels() })
    await rig.engine.createVolume(
      { name, labels: { ...rig.labels(), [LABEL.uid]: 'another' }, sizeBytes: null },
      rig.call(),
    )
    expect(await rig.engine.inspectVolume(name, rig.call())).toEqual(first)
    const listed = (await rig.engine.listVolumes(rig.call())).filter((v) => v.name === name)
    expect(listed).toEqual([first])
  })

  test('unlabelled volumes are listed too', async () => {
    const name = await rig.volume({ labels: {} })
    expect((await rig.engine.listVolumes(rig.call())).map((v) => v.name)).toContain(name)
    expect((await rig.engine.inspectVolume(name, rig.call()))?.labels[LABEL.installation]).toBeUndefined()
  })

  test('what is absent is null by inspect, and its removal succeeds', async () => {
    const name = rig.name('never')
    expect(await rig.engine.inspectVolume(name, rig.call())).toBeNull()
    await rig.engine.removeVolume(name, rig.call())
    const made = await rig.volume()
    await rig.engine.removeVolume(made, rig.call())
    expect(await rig.engine.inspectVolume(made, rig.call())).toBeNull()
    await rig.engine.removeVolume(made, rig.call())
    await refused(rig.engine.volumeIsEmpty(name, rig.call()), 'not-found', 'none')
  })

  test('a volume that is missing at create is refused, or made without our labels', async () => {
    const name = rig.name('silent')
    rig.watchVolume(name)
    const made = await rig.create({ mounts: [mount(name)] }).catch((error: unknown) => error)
    if (made instanceof Error) {
      await refused(Promise.reject(made), ['not-found', 'invalid', 'failed'], 'none')
      return
    }
    const facts = await rig.engine.inspectVolume(name, rig.call())
    expect(facts?.labels[LABEL.installation]).toBeUndefined()
  })

  test('removal is refused while any instance mounts it, a stopped one too, and the data stays', async () => {
    const name = await rig.volume()
    const { id } = await rig.running({ mounts: [mount(name)] })
    await refused(rig.engine.removeVolume(name, rig.call()), 'conflict', 'none')
    await rig.engine.stopInstance(id, 1_000, rig.call())
    await refused(rig.engine.removeVolume(name, rig.call()), 'conflict', 'none')
    expect(await rig.engine.inspectVolume(name, rig.call())).not.toBeNull()
    await rig.engine.removeInstance(id, rig.call())
    await rig.engine.removeVolume(name, rig.call())
    expect(await rig.engine.inspectVolume(name, rig.call())).toBeNull()
  })
}

function images(rig: Rig): void {
  test('an image that is there is told, and a missing one is null', async () => {
    expect((await rig.engine.inspectImage(rig.subject.image, rig.call()))?.id).toBeTruthy()
    expect(await rig.engine.inspectImage(rig.subject.missingImage, rig.call())).toBeNull()
  })

  if (rig.traits.declaringImage)
    test('the paths that an image declares are told', async () => {
      const { image, path } = given(rig.subject.declares)
      expect((await rig.engine.inspectImage(image, rig.call()))?.volumes).toEqual([path])
    })
}

function mounting(rig: Rig): void {
  test('a volume is empty until something is in it, be it hidden or in a directory', async () => {
    const name = await rig.volume()
    expect(await rig.engine.volumeIsEmpty(name, rig.call())).toBe(true)
    const { id } = await rig.running({ mounts: [mount(name)] })
    expect(await rig.engine.volumeIsEmpty(name, rig.call())).toBe(true)
    await rig.exec(id, rig.commands.write('/data/.hidden', ''))
    expect(await rig.engine.volumeIsEmpty(name, rig.call())).toBe(false)
  })

  test('data outlives the instances that use it', async () => {
    const name = await rig.volume()
    const first = await rig.running({ mounts: [mount(name)] })
    expect((await rig.facts(first.id)).mounts).toEqual([{ path: '/data', volume: name, readOnly: false }])
    expect((await rig.exec(first.id, rig.commands.write('/data/f', 'kept'))).code).toBe(0)
    await rig.engine.removeInstance(first.id, rig.call())
    expect(await rig.engine.inspectVolume(name, rig.call())).not.toBeNull()
    const second = await rig.running({ mounts: [mount(name, { path: '/elsewhere' })] })
    expect((await rig.exec(second.id, rig.commands.read('/elsewhere/f'))).stdout.toString()).toBe('kept')
  })

  test('a volume mounted twice is one volume', async () => {
    const name = await rig.volume()
    const a = await rig.running({ mounts: [mount(name)] })
    const b = await rig.running({ mounts: [mount(name)] })
    await rig.exec(a.id, rig.commands.write('/data/f', 'shared'))
    expect((await rig.exec(b.id, rig.commands.read('/data/f'))).stdout.toString()).toBe('shared')
  })

  test('a read-only mount refuses writes', async () => {
    const name = await rig.volume()
    const { id } = await rig.running({ mounts: [mount(name, { readOnly: true })] })
    expect((await rig.facts(id)).mounts).toEqual([{ path: '/data', volume: name, readOnly: true }])
    expect((await rig.exec(id, rig.commands.write('/data/f', 'x'))).code).not.toBe(0)
    expect(await rig.engine.volumeIsEmpty(name, rig.call())).toBe(true)
  })

  test('a host directory is mounted as it is, and is no volume', async () => {
    const { hostDir } = rig.subject
    const host = (readOnly: boolean): CreateMount => ({
      path: '/host',
      source: { kind: 'host', path: hostDir },
      readOnly,
      seed: false,
    })
    const writer = await rig.running({ mounts: [host(false)] })
    expect((await rig.facts(writer.id)).mounts).toEqual([{ path: '/host', volume: null, readOnly: false }])
    expect((await rig.exec(writer.id, rig.commands.write('/host/f', 'on the host'))).code).toBe(0)
    await rig.engine.removeInstance(writer.id, rig.call())
    const reader = await rig.running({ mounts: [host(true)] })
    expect((await rig.exec(reader.id, rig.commands.read('/host/f'))).stdout.toString()).toBe('on the host')
    expect((await rig.exec(reader.id, rig.commands.write('/host/g', 'x'))).code).not.toBe(0)
  })

  test('seeding from a path that the image has not makes an instance with an empty volume', async () => {
    const name = await rig.volume()
    await rig.running({ mounts: [seed(name, '/holdfast-not-there')] })
    expect(await rig.engine.volumeIsEmpty(name, rig.call())).toBe(true)
  })
}

function seeding(rig: Rig): void {
  test("a seeded mount holds the image's files, links and modes before the instance is seen", async () => {
    const seeded = given(rig.subject.seeded)
    const name = await rig.volume()
    const request = rig.request({ image: seeded.image, mounts: [seed(name, seeded.path)] })
    // The first sight of the instance must find the volume filled: what is visible is what the planner starts.
    const making = rig.create(request)
    await until(
      'the instance to be seen',
      async () => (await rig.engine.inspectInstance(request.name, rig.call())) ?? undefined,
    )
    expect(await rig.engine.volumeIsEmpty(name, rig.call())).toBe(false)
    const { id } = await making
    const found = await entries(await rig.engine.copyOut(id, seeded.path, rig.call()))
    const base = seeded.path.split('/').at(-1)
    expect(found.get(`${base}/hello.txt`)).toMatchObject({ type: 'file', mode: 0o640, text: 'hello\n' })
    expect(found.get(`${base}/run.sh`)).toMatchObject({ type: 'file', mode: 0o755 })
    expect(found.get(`${base}/link`)).toMatchObject({ type: 'symlink', linkname: 'hello.txt' })
    expect(found.get(`${base}/sub/deep.txt`)).toMatchObject({ type: 'file', text: 'deep\n' })
    await rig.engine.startInstance(id, rig.call())
    const read = await rig.exec(id, rig.commands.read(`${seeded.path}/link`))
    expect(read.stdout.toString()).toBe('hello\n')
  })

  test('a mount that is not to be seeded stays empty', async () => {
    const seeded = given(rig.subject.seeded)
    const name = await rig.volume()
    const { id } = await rig.running({ image: seeded.image, mounts: [mount(name, { path: seeded.path })] })
    expect(await rig.engine.volumeIsEmpty(name, rig.call())).toBe(true)
    expect((await rig.exec(id, rig.commands.read(`${seeded.path}/hello.txt`))).code).not.toBe(0)
  })
}
