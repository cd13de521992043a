import { lstat, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { contentsOf, ensurePoint, find, type Tree } from './tree.ts'

let base: string
let tree: Tree

beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'holdfast-tree-'))
  for (const dir of ['upper', 'lower/etc', 'lower/private', 'volume', 'host', 'outside'])
    await mkdir(join(base, dir), { recursive: true, mode: 0o750 })
  await writeFile(join(base, 'lower/etc/file'), 'lower')
  tree = {
    layers: [join(base, 'upper'), join(base, 'lower')],
    mounts: [
      { path: '/data', source: join(base, 'volume'), fixed: false },
      { path: '/usr', source: join(base, 'host'), fixed: true },
    ],
  }
})
afterEach(() => rm(base, { recursive: true, force: true }))

test('an upper layer hides a lower one, and a mount hides both', async () => {
  expect((await find(tree, '/etc/file'))?.source).toBe(join(base, 'lower/etc/file'))
  await mkdir(join(base, 'upper/etc'))
  await writeFile(join(base, 'upper/etc/file'), 'upper')
  expect((await find(tree, '/etc/file'))?.source).toBe(join(base, 'upper/etc/file'))
  await writeFile(join(base, 'volume/f'), '')
  expect(await find(tree, '/data/f')).toMatchObject({
    path: '/data/f',
    source: join(base, 'volume/f'),
    kind: 'file',
  })
  expect(await find(tree, '/data-not')).toBeNull()
})

test('links are followed within the tree, never out of it', async () => {
  await symlink('/etc', join(base, 'upper/absolute'))
  await symlink('../../../../etc', join(base, 'upper/climbing'))
  await symlink(join(base, 'outside'), join(base, 'upper/out'))
  for (const path of ['/absolute/file', '/climbing/file', '/absolute/../etc/./file'])
    expect(await find(tree, path)).toMatchObject({ path: '/etc/file', source: join(base, 'lower/etc/file') })
  expect(await find(tree, '/out')).toBeNull()
  await symlink('loop', join(base, 'upper/loop'))
  await expect(find(tree, '/loop')).rejects.toThrow('too many symbolic links')
})

test('a mount point is made in the writable layer, with the modes that its parents have below', async () => {
  await symlink('private', join(base, 'upper/by'))
  expect(await ensurePoint(tree, '/by/new/deep', 'directory')).toBe('/private/new/deep')
  expect((await lstat(join(base, 'upper/private'))).mode & 0o777).toBe(0o750)
  expect((await lstat(join(base, 'upper/private/new/deep'))).isDirectory()).toBe(true)
  expect(await ensurePoint(tree, '/a/file', 'file')).toBe('/a/file')
  expect((await lstat(join(base, 'upper/a/file'))).isFile()).toBe(true)
})

test('a mount point beneath a volume is made in it, beneath the host it is refused', async () => {
  await ensurePoint(tree, '/data/sub', 'directory')
  expect(await readdir(join(base, 'volume'))).toEqual(['sub'])
  await expect(ensurePoint(tree, '/usr/sub', 'directory')).rejects.toMatchObject({
    kind: 'invalid',
    effect: 'none',
  })
  expect(await readdir(join(base, 'host'))).toEqual([])
  await expect(ensurePoint(tree, '/etc/file', 'directory')).rejects.toMatchObject({ kind: 'invalid' })
})

test('a planted link above a mount point makes nothing outside', async () => {
  await symlink(join(base, 'outside'), join(base, 'upper/planted'))
  const point = await ensurePoint(tree, '/planted/x', 'directory')
  expect(point).toBe(join(base, 'outside/x'))
  expect(await readdir(join(base, 'outside'))).toEqual([])
  expect((await lstat(join(base, 'upper', base, 'outside/x'))).isDirectory()).toBe(true)
})

test('what the tree has at a path comes from every layer, and from no link that is hidden', async () => {
  await mkdir(join(base, 'upper/etc'))
  expect(await contentsOf(tree, '/etc')).toEqual([join(base, 'lower/etc'), join(base, 'upper/etc')])
  await symlink(join(base, 'outside'), join(base, 'lower/hidden'))
  await mkdir(join(base, 'upper/hidden'))
  expect(await contentsOf(tree, '/hidden')).toEqual([join(base, 'upper/hidden')])
  expect(await contentsOf(tree, '/data')).toEqual([join(base, 'volume')])
  expect(await contentsOf(tree, '/etc/file')).toEqual([])
})
