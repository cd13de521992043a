import { closeSync, existsSync, linkSync, mkdirSync, openSync, renameSync, rmSync, statSync } from 'node:fs'
import { copyFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import type { Clock } from '../model/clock.ts'
import { fail, HoldfastError } from '../model/errors.ts'
import { copyDatabase, summarise, type DatabaseSummary } from '../store/sqlite/copy.ts'
import { exists, stateFiles, storedVersion, syncDir } from '../store/sqlite/files.ts'
import { MIGRATIONS } from '../store/sqlite/migrations.ts'
import { type Archived, readArchive, writeArchive, type Manifest } from './archive.ts'
import { makeWorkDir, removeLeftWorkDirs } from './workdir.ts'

export interface BackupOptions {
  readonly stateDir: string
  /** A file, or a directory in which a name is chosen. */
  readonly target: string
  /** Replaces a file that is there. */
  readonly force: boolean
  readonly clock: Pick<Clock, 'now'>
  /** Of this program. */
  readonly version: string
}

export interface Backup {
  readonly path: string
  readonly bytes: number
  readonly manifest: Manifest
}

/** `20261121T154725Z`: sorts as it was, and is a file name everywhere. */
export function stamp(at: number): string {
  return new Date(at)
    .toISOString()
    .replace(/\.\d+Z$/, 'Z')
    .replaceAll(/[-:]/g, '')
}

function targetOf(given: string, installation: string, at: number): string {
  const path = resolve(given)
  const isDirectory = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
  return isDirectory ? join(path, `holdfast-${installation}-${stamp(at)}.tar`) : path
}

/**
 * Writes everything that a restore needs into one private file, beside a running server or without one: it takes no
 * lock and changes nothing in the state directory. What is in the sandboxes' volumes is not part of it.
 *
 * The file appears under its name only once it was read back and found whole.
 */
export async function writeBackup(o: BackupOptions): Promise<Backup> {
  const files = stateFiles(resolve(o.stateDir))
  if (!exists(files.database)) throw fail('STATE_EMPTY', { dir: files.dir })
  const found = storedVersion(files.database)
  if (found > MIGRATIONS.length)
    throw fail('STORE_TOO_NEW', { found, known: MIGRATIONS.length, path: files.database })
  const at = o.clock.now()
  const parent = statSync(o.target, { throwIfNoEntry: false })?.isDirectory()
    ? resolve(o.target)
    : dirname(resolve(o.target))
  let work: string | null = null
  try {
    removeLeftWorkDirs(parent)
    work = makeWorkDir(parent)
    const content = join(work, 'content')
    mkdirSync(content, { mode: 0o700 })
    const about = await collect(files.dir, content)
    const path = targetOf(o.target, about.installation, at)
    if (existsSync(path) && !o.force) throw fail('BACKUP_EXISTS', { path })
    const made = join(work, 'backup.tar')
    const names = (['holdfast.db', 'secret.key', 'cli.key'] as const).filter((n) => exists(join(content, n)))
    const manifest = await writeArchive(made, content, names satisfies readonly Archived[], {
      holdfast: o.version,
      createdAt: new Date(at).toISOString(),
      ...about,
    })
    await verify(made, join(work, 'verify'), about)
    publish(made, path, o.force)
    return { path, bytes: statSync(path).size, manifest }
  } catch (error) {
    if (error instanceof HoldfastError) throw error
    const failure = fail('BACKUP_FAILED', { detail: error instanceof Error ? error.message : String(error) })
    failure.cause = error
    throw failure
  } finally {
    if (work !== null) rmSync(work, { recursive: true, force: true })
  }
}

async function collect(stateDir: string, into: string): Promise<DatabaseSummary> {
  const files = stateFiles(stateDir)
  const database = join(into, basename(files.database))
  copyDatabase(files.database, database)
  for (const name of ['secret.key', 'cli.key'] as const) {
    const from = join(stateDir, name)
    // The server may not have written the CLI's copy of its key yet; then there is none to keep.
    if (exists(from)) await copyFile(from, join(into, name))
  }
  return summarise(database)
}

/** Reads the file back as a restore would: what cannot be restored is no backup. */
async function verify(path: string, into: string, expected: DatabaseSummary): Promise<void> {
  mkdirSync(into, { mode: 0o700 })
  await readArchive(path, into)
  const found = summarise(join(into, 'holdfast.db'))
  if (JSON.stringify(found) !== JSON.stringify(expected))
    throw new Error('what was written does not read back as it was')
}

/** What a file system says that has no hard links. */
const NO_LINKS: readonly (string | undefined)[] = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK']

/** Under its name in one step. Without `force` a file that appeared meanwhile is not replaced either. */
function publish(made: string, path: string, force: boolean): void {
  if (force) renameSync(made, path)
  else {
    try {
      linkSync(made, path)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EEXIST') throw fail('BACKUP_EXISTS', { path })
      if (!NO_LINKS.includes(code)) throw error
      publishWithoutLinks(made, path)
    }
  }
  syncDir(dirname(path))
}

/** The name is taken first, by an empty file that no restore accepts, and then given its content in one step. */
export function publishWithoutLinks(made: string, path: string): void {
  try {
    closeSync(openSync(path, 'wx', 0o600))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw fail('BACKUP_EXISTS', { path })
    throw error
  }
  renameSync(made, path)
}
