import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import type { Engine } from '../engines/engine.ts'
import type { Clock } from '../model/clock.ts'
import { fail, HoldfastError } from '../model/errors.ts'
import { epochAfter, holdCause, type Hold } from '../model/hold.ts'
import type { Ids } from '../model/ids.ts'
import { isSqliteError } from '../store/sqlite/connection.ts'
import { markHeld, readHold, summarise } from '../store/sqlite/copy.ts'
import { stateFiles, type StateFiles } from '../store/sqlite/files.ts'
import { openSqliteStore } from '../store/sqlite/index.ts'
import { holdsStore, keepAside, putInPlace } from '../store/sqlite/replace.ts'
import { installationsOn, readContents } from './contents.ts'
import { mergeRows, type Merged } from './merge.ts'
import { freeName, STAGING, whileLocked } from './restore.ts'
import { rebuildRows, UNKNOWN, type Rebuilt } from './rows.ts'

export interface RebuildOptions {
  readonly stateDir: string
  readonly engine: Engine
  /** Needed where the engine has objects of several. */
  readonly installation: string | null
  /** Looks and changes nothing. */
  readonly dryRun: boolean
  /** Replaces a store that can be read; it is kept beside. */
  readonly force: boolean
  readonly clock: Clock
  readonly ids: Ids
}

export interface RebuildResult extends Rebuilt {
  /** What an engine cannot tell, in words. */
  readonly unknown: readonly string[]
  readonly installation: string
  readonly engine: string
  /** `new`: a store was made. `merged`: what a restored store did not know was added to it. */
  readonly how: 'dry-run' | 'new' | 'merged'
  /** What a merge changed; null otherwise. */
  readonly merged: Merged | null
  /** Where the former store is kept; null when there was none. */
  readonly kept: string | null
}

/** What is in the state directory, as far as it decides what a rebuild may do. */
type Present =
  | { readonly kind: 'none' | 'unreadable' | 'whole' }
  | { readonly kind: 'held'; readonly installation: string }

/** SQLite's words for what no later look can read either: no such table, a malformed file, not a database. */
const DAMAGE_CODES: readonly number[] = [1, 11, 26]
const PRIMARY_CODE = 0xff

/** A store that is of a newer version, busy, or that may not be read just now is not damaged: it is no leave to replace it. */
function isDamage(error: unknown): boolean {
  if (error instanceof HoldfastError) return error.code === 'STORE_FAILED'
  if (isSqliteError(error)) return DAMAGE_CODES.includes(error.errcode & PRIMARY_CODE)
  return (error as NodeJS.ErrnoException).syscall === undefined
}

function presentStore(files: StateFiles, force: boolean): Present {
  if (!holdsStore(files)) return { kind: 'none' }
  try {
    const { installation } = summarise(files.database)
    return readHold(files.database) === null ? { kind: 'whole' } : { kind: 'held', installation }
  } catch (error) {
    if (!force && !isDamage(error)) throw error
    // A new one is made beside it, and it is kept.
    return { kind: 'unreadable' }
  }
}

/** The engine that a store in this directory is on; null when there is none, or none that can be read. */
export function storedEngine(stateDir: string): 'docker' | 'local' | null {
  const files = stateFiles(resolve(stateDir))
  if (!holdsStore(files)) return null
  try {
    const { engine } = summarise(files.database)
    return engine === 'docker' || engine === 'local' ? engine : null
  } catch {
    // It is damaged, which is why it is rebuilt: whoever asks names the engine, or it is looked for.
    return null
  }
}

async function chooseInstallation(o: RebuildOptions, present: Present): Promise<string> {
  const { engine } = o
  const found = await installationsOn(engine)
  const asked = o.installation ?? (present.kind === 'held' ? present.installation : null)
  if (asked !== null) {
    if (found.has(asked)) return asked
    throw fail('NOTHING_TO_REBUILD', { engine: engine.id, installation: asked })
  }
  const [only] = found.keys()
  if (only === undefined) throw fail('NOTHING_TO_REBUILD', { engine: engine.id, installation: null })
  if (found.size === 1) return only
  const names = [...found].map(([installation, n]) => `${installation} (${n} objects)`)
  throw fail('SEVERAL_INSTALLATIONS', { engine: engine.id, found: names })
}

/**
 * Makes rows of what the engine tells: a new store where there is none or none that can be read; where there is one
 * that was restored and is still held, what it does not know. Everything is held afterwards. The engine is only read.
 */
export async function rebuild(o: RebuildOptions): Promise<RebuildResult> {
  const look = async (present: Present): Promise<Omit<RebuildResult, 'how' | 'kept' | 'merged'>> => {
    const installation = await chooseInstallation(o, present)
    const contents = await readContents(o.engine, installation)
    const base = { installation, engine: o.engine.id, contents, now: o.clock.now() }
    return {
      installation,
      engine: o.engine.id,
      unknown: UNKNOWN,
      ...rebuildRows({ ...base, fresh: () => o.ids.next() }),
    }
  }
  const files = stateFiles(resolve(o.stateDir))
  if (o.dryRun)
    return { ...(await look(presentStore(files, o.force))), how: 'dry-run', kept: null, merged: null }
  const made = await whileLocked(files.dir, o.clock, async () => {
    const present = presentStore(files, o.force)
    if (present.kind === 'held' && !o.force) return null
    if (present.kind === 'whole' && !o.force) throw fail('STATE_NOT_EMPTY', { dir: files.dir })
    const found = await look(present)
    return { ...found, how: 'new', merged: null, kept: await makeStore(files, o, found) } as const
  })
  if (made !== null) return made
  const found = await look(presentStore(files, o.force))
  return { ...found, how: 'merged', kept: null, merged: await mergeRows(files.dir, found, o) }
}

/** The new store is made beside and put in place whole. Returns where the former one is kept. */
async function makeStore(
  files: StateFiles,
  o: RebuildOptions,
  found: Rebuilt & { readonly installation: string },
): Promise<string | null> {
  const staged = mkdtempSync(join(files.dir, STAGING))
  try {
    // The key outlives the database: what was sealed with it elsewhere stays readable.
    if (existsSync(files.key)) copyFileSync(files.key, join(staged, basename(files.key)))
    const { clock, ids } = o
    const store = await openSqliteStore({ dir: staged, clock, ids, installation: found.installation })
    try {
      await store.write(true, async (tx) => {
        await tx.setMeta('engine', o.engine.id)
        for (const volume of found.volumes) await tx.insertVolume(volume)
        for (const { record } of found.sandboxes) await tx.insertSandbox(record)
      })
    } finally {
      await store.close()
    }
    const now = clock.now()
    const hold: Hold = { reason: 'rebuilt', since: now, backupAt: null }
    const text = `${holdCause(hold)}: ${found.sandboxes.length} sandboxes, ${found.volumes.length} volumes. Removals are held until a person confirms.`
    markHeld(join(staged, basename(files.database)), epochAfter(0, now), hold, text)
    const kept = holdsStore(files) ? freeName(files, now) : null
    if (kept !== null) keepAside(files, kept)
    putInPlace(files, staged)
    return kept
  } finally {
    rmSync(staged, { recursive: true, force: true })
  }
}
