import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { pack } from 'tar-stream'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { packPath } from '../../src/cli/copy/pack.ts'
import {
  bare,
  entryParts,
  meansContents,
  meansDirectory,
  parsePlace,
  UnsafeEntry,
} from '../../src/cli/copy/paths.ts'
import { unpack } from '../../src/cli/copy/unpack.ts'

let root = ''

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'holdfast-cp-'))
  await mkdir(join(root, 'in'))
  await writeFile(join(root, 'outside'), 'untouched')
})
afterEach(() => rm(root, { recursive: true, force: true }))

type Item = Parameters<ReturnType<typeof pack>['entry']>[0] & { body?: string }

function archive(items: readonly Item[]): Readable {
  const tar = pack()
  for (const { body = '', ...header } of items) {
    if (header.type === undefined || header.type === 'file') tar.entry(header, body)
    else tar.entry(header)
  }
  tar.finalize()
  return tar as unknown as Readable
}

const into = (rootName = 'got'): { within: string; rootName: string } => ({
  within: join(root, 'in'),
  rootName,
})
const quiet = { keepOwner: false, onFile: () => undefined, onSkip: () => undefined }

describe('places', () => {
  it('tells sandboxes, local paths and streams apart as docker cp does', () => {
    expect(parsePlace('web:/a/b')).toEqual({ kind: 'sandbox', ref: 'web', path: '/a/b' })
    expect(parsePlace('web:a/../b')).toEqual({ kind: 'sandbox', ref: 'web', path: '/b' })
    expect(parsePlace('web:/a/.')).toEqual({ kind: 'sandbox', ref: 'web', path: '/a/.' })
    expect(parsePlace('web:/../../etc')).toEqual({ kind: 'sandbox', ref: 'web', path: '/etc' })
    expect(parsePlace('./web:/a')).toEqual({ kind: 'local', path: './web:/a' })
    expect(parsePlace('/x:y')).toEqual({ kind: 'local', path: '/x:y' })
    expect(parsePlace('-')).toEqual({ kind: 'stream' })
    expect(() => parsePlace('web:')).toThrow('names no path')
  })

  it('knows what a trailing slash or dot means', () => {
    expect([meansContents('a/.'), meansContents('.'), meansContents('a/')]).toEqual([true, true, false])
    expect([meansDirectory('a/'), meansDirectory('a/.'), meansDirectory('a')]).toEqual([true, true, false])
    expect(['a/', 'a/.', '/', '/.', 'a', '.'].map(bare)).toEqual(['a', 'a', '/', '/', 'a', '.'])
  })

  it('refuses entries that leave the archive', () => {
    for (const name of ['/etc/passwd', '../x', 'a/../../x', 'a/..', 'a\0b']) {
      expect(() => entryParts(name)).toThrow(UnsafeEntry)
    }
    expect(entryParts('./a//b/./c/')).toEqual(['a', 'b', 'c'])
  })
})

describe('unpacking', () => {
  const refused = async (items: readonly Item[], rootName?: string): Promise<void> => {
    await expect(unpack(archive(items), into(rootName))).rejects.toThrow(UnsafeEntry)
    expect(await readFile(join(root, 'outside'), 'utf8')).toBe('untouched')
    expect((await readdir(root)).toSorted()).toEqual(['in', 'outside'])
  }
  const top: Item = { name: 'x', type: 'directory' }

  it('refuses names that climb or are absolute', async () => {
    await refused([top, { name: 'x/../../outside', body: 'bad' }])
    await refused([top, { name: '../outside', body: 'bad' }])
    await refused([top, { name: `${root}/outside`, body: 'bad' }])
  })

  it('refuses to write through a link that the archive brought along', async () => {
    await refused([
      top,
      { name: 'x/out', type: 'symlink', linkname: root },
      { name: 'x/out/outside', body: 'bad' },
    ])
    await refused([
      top,
      { name: 'x/up', type: 'symlink', linkname: '../..' },
      { name: 'x/up/new', body: 'bad' },
    ])
    await refused([
      top,
      { name: 'x/up', type: 'symlink', linkname: '../..' },
      { name: 'x/up/', type: 'directory' },
      { name: 'x/up/new', body: 'bad' },
    ])
  })

  it('refuses to write through a link that was there before', async () => {
    await mkdir(join(root, 'in', 'got'))
    await symlink(root, join(root, 'in', 'got', 'out'))
    await refused([top, { name: 'x/out/outside', body: 'bad' }])
  })

  it('refuses a hard link to what is outside', async () => {
    await refused([top, { name: 'x/h', type: 'link', linkname: '../outside' }])
    await refused([
      top,
      { name: 'x/s', type: 'symlink', linkname: '../../outside' },
      { name: 'x/h', type: 'link', linkname: 'x/s' },
    ])
  })

  it('replaces a link at the place of a file, without following it', async () => {
    await mkdir(join(root, 'in', 'got'))
    await symlink('../../outside', join(root, 'in', 'got', 'f'))
    await unpack(archive([top, { name: 'x/f', body: 'new' }]), into())
    expect(await readFile(join(root, 'in', 'got', 'f'), 'utf8')).toBe('new')
    expect(await readFile(join(root, 'outside'), 'utf8')).toBe('untouched')
  })

  it('keeps links as links, modes without set-uid, and leaves devices out', async () => {
    const done = await unpack(
      archive([
        top,
        { name: 'x/run', mode: 0o4755, body: '#!' },
        { name: 'x/abs', type: 'symlink', linkname: '/usr/bin/python3' },
        { name: 'x/same', type: 'link', linkname: 'x/run' },
        { name: 'x/dev', type: 'character-device', devmajor: 1, devminor: 3 },
      ]),
      into(),
    )
    const got = join(root, 'in', 'got')
    expect((await stat(join(got, 'run'))).mode & 0o7777).toBe(0o755)
    expect(await readlink(join(got, 'abs'))).toBe('/usr/bin/python3')
    expect((await stat(join(got, 'same'))).ino).toBe((await stat(join(got, 'run'))).ino)
    expect(done.skipped).toHaveLength(1)
    expect((await readdir(got)).toSorted()).toEqual(['abs', 'run', 'same'])
  })

  it('names the root as told, whatever the archive calls it', async () => {
    await unpack(archive([{ name: 'authorized_keys', body: 'k' }]), into('file'))
    expect(await readdir(join(root, 'in'))).toEqual(['file'])
    await unpack(
      archive([
        { name: './', type: 'directory' },
        { name: './a', body: '1' },
      ]),
      into('dir'),
    )
    expect(await readFile(join(root, 'in', 'dir', 'a'), 'utf8')).toBe('1')
  })

  it('puts the contents of a directory straight in when told so', async () => {
    await unpack(archive([top, { name: 'x/a', body: '1' }, { name: 'x/b/c', body: '2' }]), into(''))
    expect((await readdir(join(root, 'in'))).toSorted()).toEqual(['a', 'b'])
  })

  it('overwrites files and merges directories, and never puts one in place of the other', async () => {
    await mkdir(join(root, 'in', 'got', 'd'), { recursive: true })
    await writeFile(join(root, 'in', 'got', 'f'), 'old')
    await unpack(archive([top, { name: 'x/f', body: 'new' }, { name: 'x/d/n', body: 'n' }]), into())
    expect(await readFile(join(root, 'in', 'got', 'f'), 'utf8')).toBe('new')
    await expect(unpack(archive([top, { name: 'x/d', body: '' }]), into())).rejects.toThrow(
      'is a directory here',
    )
    await expect(unpack(archive([top, { name: 'x/f/g', body: '' }]), into())).rejects.toThrow('is a file')
  })
})

describe('packing and unpacking', () => {
  it('brings a tree back as it was: bytes, modes, times, links, odd names and read-only directories', async () => {
    const from = join(root, 'from')
    await mkdir(join(from, 'sub', 'empty'), { recursive: true })
    const big = Buffer.alloc(300_000, Buffer.from([0, 1, 255, 10]))
    await writeFile(join(from, 'big'), big)
    await writeFile(join(from, 'sub', `ü ${'n'.repeat(150)}`), 'x')
    await writeFile(join(from, 'empty'), '')
    await chmod(join(from, 'big'), 0o640)
    await symlink('../big', join(from, 'sub', 'link'))
    await chmod(join(from, 'sub'), 0o555)
    await unpack(packPath(from, 'tree', quiet), into('back'))
    const back = join(root, 'in', 'back')
    expect((await readFile(join(back, 'big'))).equals(big)).toBe(true)
    expect((await stat(join(back, 'big'))).mode & 0o777).toBe(0o640)
    expect(Math.floor((await stat(join(back, 'big'))).mtimeMs / 1000)).toBe(
      Math.floor((await stat(join(from, 'big'))).mtimeMs / 1000),
    )
    expect((await stat(join(back, 'sub'))).mode & 0o777).toBe(0o555)
    expect(await readlink(join(back, 'sub', 'link'))).toBe('../big')
    expect((await readdir(join(back, 'sub'))).toSorted()).toEqual(
      (await readdir(join(from, 'sub'))).toSorted(),
    )
    await Promise.all([chmod(join(from, 'sub'), 0o755), chmod(join(back, 'sub'), 0o755)])
  })

  it('breaks the stream when something cannot be read', async () => {
    await expect(unpack(packPath(join(root, 'missing'), 'x', quiet), into())).rejects.toThrow('ENOENT')
  })
})
