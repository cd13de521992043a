import { spawn } from 'node:child_process'
import { access, constants, lstat, mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import type { Ids } from '../../model/ids.ts'
import { errnoOf, isAbsent, refuse } from './errors.ts'
import { statOf } from './proc.ts'

/** Where things are below the engine's root. All of it is private to the server's user. */
export interface Layout {
  readonly root: string
  readonly instances: string
  readonly volumes: string
  readonly skeletons: string
  /** What this process is making: renamed into place when complete. */
  readonly making: string
  /** What is being removed: renamed out of sight first. */
  readonly trash: string
}

/** A process as a directory's name: what it was making is left over once it is gone. */
function processName(pid: number): string {
  return `${pid}-${(statOf(pid)?.start ?? 'gone').replaceAll(/\W/g, '_')}`
}

export function layoutOf(root: string): Layout {
  return {
    root,
    instances: join(root, 'instances'),
    volumes: join(root, 'volumes'),
    skeletons: join(root, 'skeletons'),
    making: join(root, 'making', processName(process.pid)),
    trash: join(root, 'trash'),
  }
}

/** Makes the directories. Returns what an earlier process left half made or half removed, for `removeTree`. */
export async function openLayout(layout: Layout): Promise<readonly string[]> {
  for (const dir of [
    layout.root,
    layout.instances,
    layout.volumes,
    layout.skeletons,
    layout.making,
    layout.trash,
  ])
    await mkdir(dir, { recursive: true, mode: 0o700 })
  const left = (await readdir(layout.trash)).map((name) => join(layout.trash, name))
  for (const name of await readdir(join(layout.root, 'making')))
    if (name !== processName(Number.parseInt(name, 10))) left.push(join(layout.root, 'making', name))
  return left
}

/** One path segment that is no option, no dot name and has no `@`, which separates an instance's name from its number. */
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$/

export function checkName(name: string, what: string): string {
  if (!NAME.test(name)) throw refuse('invalid', `"${name}" cannot be the name of ${what}`)
  return name
}

/** Writes a file that is either the old one or the new one after a power cut, never half of one. */
export async function writeDurably(path: string, text: string, mode = 0o600): Promise<void> {
  // Another process on the same directory has its own.
  const temporary = `${path}.${process.pid}.new`
  const file = await open(temporary, 'w', mode)
  try {
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(temporary, path)
  await syncDirectory(join(path, '..'))
}

/** Makes renames in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const dir = await open(path, 'r')
  try {
    await dir.sync()
  } finally {
    await dir.close()
  }
}

/** Null when the file is certainly not there. */
export async function readText(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (isAbsent(error)) return null
    throw error
  }
}

export async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path)
    return true
  } catch (error) {
    if (isAbsent(error)) return false
    throw error
  }
}

/** Out of sight in one step, then gone. What a kill leaves behind is removed at the next open. */
export async function discard(layout: Layout, ids: Ids, path: string): Promise<void> {
  const away = join(layout.trash, ids.next())
  try {
    await rename(path, away)
  } catch (error) {
    if (isAbsent(error)) return
    throw error
  }
  await syncDirectory(join(path, '..'))
  await removeTree(away)
}

/** Removes a tree, also one whose directories a sandbox has made unreadable for their owner. */
export async function removeTree(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true })
  } catch (error) {
    if (errnoOf(error) !== 'EACCES' && errnoOf(error) !== 'EPERM') throw error
    const opened = await runTool('chmod', ['-R', 'u+rwX', '--', path])
    if (opened.code !== 0)
      throw new Error(`cannot open ${path} for its removal: ${opened.stderr}`, { cause: error })
    await rm(path, { recursive: true, force: true })
  }
}

/** Where the host's programs are looked for, whatever little the server's own PATH names. */
export function hostPath(): string {
  return [process.env['PATH'], '/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin']
    .filter(Boolean)
    .join(delimiter)
}

/** The environment of the host's own programs: nothing a sandbox or the server's caller has put together. */
export function hostEnvironment(): Record<string, string> {
  return { PATH: hostPath(), LC_ALL: 'C' }
}

export async function findTool(name: string): Promise<string | null> {
  for (const dir of hostPath().split(delimiter)) {
    const path = join(dir, name)
    try {
      await access(path, constants.X_OK)
      return path
    } catch {
      // Not here, or not for us: the next directory may have it.
    }
  }
  return null
}

export interface ToolResult {
  /** Null when it ended by a signal. */
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Longest that a small program of the host may take, milliseconds; a copy of data has its call's limit instead. */
const TOOL_LIMIT_MS = 60_000

/** Runs a program of the host to its end. Rejects when it cannot be started. */
export function runTool(
  command: string,
  args: readonly string[],
  options: { cwd?: string; signal?: AbortSignal; limitMs?: number } = {},
): Promise<ToolResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: hostEnvironment(),
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: options.limitMs ?? TOOL_LIMIT_MS,
      killSignal: 'SIGKILL',
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (s: string) => (stdout += s))
    child.stderr.setEncoding('utf8').on('data', (s: string) => (stderr += s))
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, stdout: stdout.trim(), stderr: stderr.trim() }))
  })
}
