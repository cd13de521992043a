import { createHash, randomBytes } from 'node:crypto'
import { lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { isAlive, statOf } from '../engines/local/proc.ts'

/**
 * Where a backup is put together: a private directory beside its target, which holds copies of keys. Its name tells which
 * process made it, so that what a killed one left behind is known as such and removed by the next.
 */
const PREFIX = '.holdfast-backup-'
const NAME = /^\.holdfast-backup-([0-9a-f]{8})-(\d+)-([0-9a-f]*)-[0-9a-f]{12}$/

const here = (): string => createHash('sha256').update(hostname()).digest('hex').slice(0, 8)

export function makeWorkDir(parent: string): string {
  // A pid alone can be another process's by the time that it is looked at.
  const start = Buffer.from(statOf(process.pid)?.start ?? '').toString('hex')
  const name = `${PREFIX}${here()}-${process.pid}-${start}-${randomBytes(6).toString('hex')}`
  const path = join(parent, name)
  mkdirSync(path, { mode: 0o700 })
  return path
}

/** Removes those of our user's processes of this machine that are no more. What others left is not judged. */
export function removeLeftWorkDirs(parent: string): void {
  for (const entry of readdirSync(parent, { withFileTypes: true })) {
    const parts = entry.isDirectory() ? NAME.exec(entry.name) : null
    if (parts === null || parts[1] !== here()) continue
    const [, , pid, start = ''] = parts
    if (isAlive({ pid: Number(pid), start: Buffer.from(start, 'hex').toString() })) continue
    const path = join(parent, entry.name)
    const owner = lstatSync(path, { throwIfNoEntry: false })?.uid
    if (owner === process.getuid?.()) rmSync(path, { recursive: true, force: true })
  }
}
