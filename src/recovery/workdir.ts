import { createHash, randomBytes } from 'node:crypto'
import { lstatSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'

/**
 * Where a backup is put together: a private directory beside its target, which holds copies of keys. Its name tells which
 * process made it, so that what a killed one left behind is known as such and removed by the next.
 */
const PREFIX = '.holdfast-backup-'
const NAME = /^\.holdfast-backup-([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{12}$/

const here = (): string => createHash('sha256').update(hostname()).digest('hex').slice(0, 8)

/** When a process started, in the kernel's ticks since boot; null when there is no such process, 0 where it is not told. */
function startOf(pid: number): number | null {
  if (process.platform !== 'linux') {
    try {
      process.kill(pid, 0)
      return 0
    } catch (error) {
      // Not ours to signal is alive nevertheless.
      return (error as NodeJS.ErrnoException).code === 'ESRCH' ? null : 0
    }
  }
  try {
    // The program's name, which may hold anything, ends with the last parenthesis.
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19])
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH') return null
    throw error
  }
}

export function makeWorkDir(parent: string): string {
  const name = `${PREFIX}${here()}-${process.pid}-${startOf(process.pid) ?? 0}-${randomBytes(6).toString('hex')}`
  const path = join(parent, name)
  mkdirSync(path, { mode: 0o700 })
  return path
}

/** Removes those of our user's processes of this machine that are no more. What others left is not judged. */
export function removeLeftWorkDirs(parent: string): void {
  for (const entry of readdirSync(parent, { withFileTypes: true })) {
    const parts = entry.isDirectory() ? NAME.exec(entry.name) : null
    if (parts === null || parts[1] !== here()) continue
    if (startOf(Number(parts[2])) === Number(parts[3])) continue
    const path = join(parent, entry.name)
    const owner = lstatSync(path, { throwIfNoEntry: false })?.uid
    if (owner === process.getuid?.()) rmSync(path, { recursive: true, force: true })
  }
}
