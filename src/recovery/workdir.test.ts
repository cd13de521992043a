import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { publishWithoutLinks } from './backup.ts'
import { makeWorkDir, removeLeftWorkDirs } from './workdir.ts'

let dir = ''
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'holdfast-workdir-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

it('what a killed process left is removed, and nothing else', () => {
  const code = `import { makeWorkDir } from ${JSON.stringify(new URL('workdir.ts', import.meta.url).href)}
console.log(makeWorkDir(${JSON.stringify(dir)})); process.kill(process.pid, 'SIGKILL')`
  const ended = spawnSync(process.execPath, ['--input-type=module', '-e', code], { encoding: 'utf8' })
  const left = ended.stdout.trim()
  expect(ended.signal).toBe('SIGKILL')
  expect(existsSync(left)).toBe(true)
  const mine = makeWorkDir(dir)
  const another = join(dir, left.replace(/^.*(\.holdfast-backup-)[0-9a-f]{8}/, '$100000000'))
  mkdirSync(another)
  mkdirSync(join(dir, '.holdfast-backup-notes'))
  removeLeftWorkDirs(dir)
  expect(existsSync(left)).toBe(false)
  expect(readdirSync(dir).toSorted()).toEqual(
    [mine, another, join(dir, '.holdfast-backup-notes')].map((path) => path.slice(dir.length + 1)).toSorted(),
  )
})

it('without hard links a backup takes its name, and never another’s', () => {
  const made = join(dir, 'made')
  writeFileSync(made, 'whole')
  publishWithoutLinks(made, join(dir, 'a.tar'))
  expect(readFileSync(join(dir, 'a.tar'), 'utf8')).toBe('whole')
  writeFileSync(made, 'second')
  expect(() => publishWithoutLinks(made, join(dir, 'a.tar'))).toThrow(/a\.tar/)
  expect(readFileSync(join(dir, 'a.tar'), 'utf8')).toBe('whole')
})
