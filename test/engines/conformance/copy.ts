import { Readable } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { extract, pack } from 'tar-stream'
import { collect, refused, type Rig } from './rig.ts'

export interface Found {
  readonly type: string
  readonly mode: number
  readonly linkname: string | null
  readonly text: string
}

/** The entries of a tar stream by name, in order, without the slash that ends a directory's. */
export async function entries(tar: Readable): Promise<Map<string, Found>> {
  const out = new Map<string, Found>()
  const unpacked = tar.pipe(extract())
  tar.on('error', (error) => unpacked.destroy(error))
  for await (const entry of unpacked) {
    const { name, type, mode, linkname } = entry.header
    const text = (await collect(entry)).toString('latin1')
    out.set(name.replace(/\/$/, ''), {
      type: type ?? 'file',
      mode: (mode ?? 0) & 0o7777,
      linkname: linkname ?? null,
      text,
    })
  }
  return out
}

/** Names that break line-wise and quoted handling, bytes that are no text, a link that leads nowhere. */
const ODD = 'a name\nof two lines'
function tree(root: string): Readable {
  const tar = pack()
  tar.entry({ name: root, type: 'directory', mode: 0o750 })
  tar.entry({ name: `${root}/${ODD}`, mode: 0o640 }, Buffer.from([0, 1, 2, 254, 255, 10]))
  tar.entry({ name: `${root}/run.sh`, mode: 0o755 }, 'exit 0\n')
  tar.entry({ name: `${root}/empty`, mode: 0o600 }, '')
  tar.entry({ name: `${root}/link`, type: 'symlink', linkname: 'nowhere at all' })
  tar.entry({ name: `${root}/sub`, type: 'directory', mode: 0o700 })
  tar.entry({ name: `${root}/sub/deep`, mode: 0o644 }, 'deep')
  tar.finalize()
  return Readable.from(tar)
}

function file(name: string, content: string | Buffer): Readable {
  const tar = pack()
  tar.entry({ name, mode: 0o644 }, content)
  tar.finalize()
  return Readable.from(tar)
}

async function expectTree(tar: Readable, root: string): Promise<void> {
  const found = await entries(tar)
  expect([...found.keys()][0]).toBe(root)
  expect([...found.keys()].toSorted()).toEqual(
    [root, ...[ODD, 'empty', 'link', 'run.sh', 'sub', 'sub/deep'].map((n) => `${root}/${n}`)].toSorted(),
  )
  expect(found.get(root)).toMatchObject({ type: 'directory', mode: 0o750 })
  expect(found.get(`${root}/${ODD}`)).toMatchObject({
    type: 'file',
    mode: 0o640,
    text: '\x00\x01\x02\xfe\xff\n',
  })
  expect(found.get(`${root}/run.sh`)).toMatchObject({ mode: 0o755, text: 'exit 0\n' })
  expect(found.get(`${root}/empty`)).toMatchObject({ mode: 0o600, text: '' })
  expect(found.get(`${root}/link`)).toMatchObject({ type: 'symlink', linkname: 'nowhere at all' })
  expect(found.get(`${root}/sub`)).toMatchObject({ type: 'directory', mode: 0o700 })
  expect(found.get(`${root}/sub/deep`)).toMatchObject({ mode: 0o644, text: 'deep' })
}

export function copyTests(rig: Rig): void {
  const copyIn = (id: string, path: string, tar: Readable): Promise<void> =>
    rig.engine.copyIn(id, path, tar, rig.call())
  const copyOut = (id: string, path: string): Promise<Readable> => rig.engine.copyOut(id, path, rig.call())

  describe('copy', () => {
    test('a tree goes in and out of a running instance unchanged', async () => {
      const { id } = await rig.running()
      const root = rig.name('tree')
      await copyIn(id, rig.scratch, tree(root))
      await expectTree(await copyOut(id, `${rig.scratch}/${root}`), root)
      expect(
        (await rig.exec(id, rig.commands.read(`${rig.scratch}/${root}/sub/deep`))).stdout.toString(),
      ).toBe('deep')
    })

    test('and of a stopped one, where it is found after the next start', async () => {
      const { id } = await rig.running()
      const root = rig.name('tree')
      await rig.engine.stopInstance(id, 5_000, rig.call())
      await copyIn(id, rig.scratch, tree(root))
      await expectTree(await copyOut(id, `${rig.scratch}/${root}`), root)
      await rig.engine.startInstance(id, rig.call())
      expect(
        (await rig.exec(id, rig.commands.read(`${rig.scratch}/${root}/sub/deep`))).stdout.toString(),
      ).toBe('deep')
    })

    test('and of one that was never started', async () => {
      const { id } = await rig.create()
      const name = rig.name('file')
      await copyIn(id, rig.scratch, file(name, 'early'))
      await rig.engine.startInstance(id, rig.call())
      expect((await rig.exec(id, rig.commands.read(`${rig.scratch}/${name}`))).stdout.toString()).toBe(
        'early',
      )
    })

    if (rig.traits.isolated)
      test("a stopped instance's volumes are reached through it", async () => {
        const volume = await rig.volume()
        const source = { kind: 'volume', name: volume } as const
        const { id } = await rig.running({
          mounts: [{ path: '/data', source, readOnly: false, seed: false }],
        })
        await rig.exec(id, rig.commands.write('/data/f', 'in the volume'))
        await rig.engine.stopInstance(id, 5_000, rig.call())
        expect((await entries(await copyOut(id, '/data/f'))).get('f')?.text).toBe('in the volume')
        await copyIn(id, '/data', file('g', 'put there'))
        await rig.engine.startInstance(id, rig.call())
        expect((await rig.exec(id, rig.commands.read('/data/g'))).stdout.toString()).toBe('put there')
      })

    test('an existing file is overwritten, and 8 MB arrive whole', async () => {
      const { id } = await rig.running()
      const name = rig.name('big')
      await copyIn(id, rig.scratch, file(name, 'small'))
      await copyIn(id, rig.scratch, file(name, Buffer.alloc(8_000_001, 'x')))
      const out = await entries(await copyOut(id, `${rig.scratch}/${name}`))
      expect(out.get(name)?.text.length).toBe(8_000_001)
    })

    test('a path that is not there is not-found, both ways', async () => {
      const { id } = await rig.running()
      const missing = `${rig.scratch}/${rig.name('missing')}`
      await refused(copyOut(id, missing), 'not-found', 'none')
      await refused(copyIn(id, missing, file('f', 'x')), 'not-found', 'none')
      await refused(copyOut('holdfast-no-such-instance', '/'), 'not-found', 'none')
    })
  })
}
