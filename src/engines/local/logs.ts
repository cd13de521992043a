import { spawn } from 'node:child_process'
import { closeSync, constants, openSync } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { type Clock, sleep } from '../../model/clock.ts'
import type { LogChunk, LogRequest } from '../engine.ts'
import { isAbsent, refuse } from './errors.ts'
import { hostEnvironment, runTool } from './files.ts'
import { isAlive, type ProcessIdentity, statOf } from './proc.ts'

export const LOG_FILES: readonly ['out.log', 'err.log'] = ['out.log', 'err.log']
const PIPES = ['out.pipe', 'err.pipe'] as const
const STREAMS = ['stdout', 'stderr'] as const

/** What is kept of each stream, bytes. */
export const LOG_KEEP_BYTES: number = 16 * 1024 * 1024
/** A log is cut when it has grown by this much beyond what is kept, bytes: cutting costs a process. */
const LOG_SLACK_BYTES = 4 * 1024 * 1024
const CHUNK_BYTES = 64 * 1024
/** How long the last output may take to reach its file, milliseconds. */
const DRAIN_LIMIT_MS = 2_000
/** How often a followed log is looked at, milliseconds. */
const FOLLOW_MS = 150

async function sizeOf(path: string): Promise<{ size: number; used: number; changedAt: number }> {
  try {
    const s = await stat(path)
    return { size: s.size, used: s.blocks * 512, changedAt: s.mtimeMs }
  } catch (error) {
    if (isAbsent(error)) return { size: 0, used: 0, changedAt: 0 }
    throw error
  }
}

/** Named pipes for a workload's output, which every user inside may open again through /dev/stdout. */
export async function makeLogPipes(dir: string): Promise<void> {
  const made = await runTool('mkfifo', ['-m', '666', ...PIPES.map((name) => join(dir, name))])
  if (made.code !== 0) throw new Error(`no pipes for the logs: ${made.stderr}`)
}

export interface LogWriters {
  /** The workload's ends, for `stdio`. */
  readonly fds: readonly [number, number]
  /** The processes that write the files: they end by themselves after the last writer. */
  readonly loggers: readonly ProcessIdentity[]
  close(): void
}

/**
 * A `cat` for each stream stands between workload and file. The file itself as standard output would be emptied by
 * every script that says `echo … > /dev/stderr`. They are not our children: output goes on being kept without us.
 */
export function openLogs(dir: string): LogWriters {
  const open: number[] = []
  const file = (path: string, flags: string | number): number => {
    const fd = openSync(join(dir, path), flags, 0o600)
    open.push(fd)
    return fd
  }
  const close = (): void => {
    for (const fd of open.splice(0)) closeSync(fd)
  }
  try {
    const fds: number[] = []
    const loggers: ProcessIdentity[] = []
    for (const i of [0, 1] as const) {
      // Held open both ways, or either of the next two opens would wait for the other.
      file(PIPES[i], constants.O_RDWR | constants.O_NONBLOCK)
      const reader = file(PIPES[i], 'r')
      fds.push(file(PIPES[i], constants.O_WRONLY))
      const child = spawn('cat', [], {
        cwd: '/',
        env: hostEnvironment(),
        detached: true,
        stdio: [reader, file(LOG_FILES[i], 'a'), 'ignore'],
      })
      child.on('error', () => undefined) // then it has no pid, which is told below
      child.unref()
      const stat = child.pid === undefined ? null : statOf(child.pid)
      if (stat === null) throw new Error('cat cannot be started')
      loggers.push({ pid: stat.pid, start: stat.start })
    }
    return { fds: [fds[0] ?? -1, fds[1] ?? -1], loggers, close }
  } catch (error) {
    close()
    throw error
  }
}

/** Waits until everything that a dead instance has said is in its files. */
export async function drainLogs(clock: Clock, loggers: readonly ProcessIdentity[]): Promise<void> {
  const end = clock.monotonic() + DRAIN_LIMIT_MS
  // One that does not end has a writer that outlived the instance: its words are late, not lost.
  while (loggers.some(isAlive) && clock.monotonic() < end) await sleep(clock, 2)
}

export async function logSizes(dir: string): Promise<[number, number]> {
  return [(await sizeOf(join(dir, LOG_FILES[0]))).size, (await sizeOf(join(dir, LOG_FILES[1]))).size]
}

/**
 * Gives back the space of a log's old head, by a hole: the workload goes on appending to the same file, offsets stay
 * what they are, and nothing that is kept moves. A file system without holes keeps the whole log.
 */
export async function trimLogs(dir: string): Promise<void> {
  for (const name of LOG_FILES) {
    const path = join(dir, name)
    const { size, used } = await sizeOf(path)
    if (used <= LOG_KEEP_BYTES + LOG_SLACK_BYTES) continue
    await runTool('fallocate', [
      '--punch-hole',
      '--offset',
      '0',
      '--length',
      String(size - LOG_KEEP_BYTES),
      path,
    ])
  }
}

async function* readRange(path: string, from: number, to: number): AsyncGenerator<Uint8Array> {
  if (from >= to) return
  const file = await open(path, 'r')
  try {
    for (let at = from; at < to;) {
      const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, to - at))
      const { bytesRead } = await file.read(buffer, 0, buffer.length, at)
      if (bytesRead === 0) return
      at += bytesRead
      yield buffer.subarray(0, bytesRead)
    }
  } finally {
    await file.close()
  }
}

/** The offset after the first line end at or after `from`; `from` itself at the file's start. */
async function nextLine(path: string, from: number, to: number): Promise<number> {
  if (from <= 0) return 0
  let at = from - 1
  for await (const chunk of readRange(path, at, to)) {
    const newline = chunk.indexOf(10)
    if (newline >= 0) return at + newline + 1
    at += chunk.length
  }
  return to
}

/** Where the last `lines` lines begin. */
async function tailStart(path: string, from: number, to: number, lines: number): Promise<number> {
  if (lines <= 0) return to
  let left = lines
  for (let end = to; end > from;) {
    const begin = Math.max(from, end - CHUNK_BYTES)
    const parts: Uint8Array[] = []
    for await (const chunk of readRange(path, begin, end)) parts.push(chunk)
    const block = Buffer.concat(parts)
    for (let i = block.length - 1; i >= 0; i--) {
      if (block[i] !== 10 || begin + i === to - 1) continue
      if ((left -= 1) === 0) return begin + i + 1
    }
    end = begin
  }
  return from
}

function refuseAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw refuse('aborted', 'the reading of the logs was aborted')
}

export interface LogSource {
  readonly dir: string
  /** When the current or last run began, and how long the logs were then. */
  readonly startedAt: number | null
  readonly logStart: readonly [number, number]
}

/**
 * The two logs, one after the other. Their order among each other and the times of lines are not kept; `sinceMs`
 * leaves out what earlier runs wrote, and everything when nothing was written since.
 */
export async function* readLogs(
  clock: Clock,
  source: LogSource,
  request: LogRequest,
  running: () => Promise<boolean>,
  signal: AbortSignal | undefined,
): AsyncGenerator<LogChunk> {
  const at: [number, number] = [0, 0]
  for (const i of [0, 1] as const) {
    const path = join(source.dir, LOG_FILES[i])
    const { size, changedAt } = await sizeOf(path)
    const oldest = await nextLine(path, size - LOG_KEEP_BYTES, size)
    const since =
      changedAt < request.sinceMs
        ? size
        : (source.startedAt ?? Infinity) <= request.sinceMs
          ? source.logStart[i]
          : 0
    const from = Math.max(oldest, since)
    at[i] = request.tail === null ? from : await tailStart(path, from, size, request.tail)
  }
  for (;;) {
    // Asked before the read: what was written before the end is then certainly in it.
    const goesOn = request.follow && (await running())
    for (const i of [0, 1] as const) {
      refuseAborted(signal)
      const path = join(source.dir, LOG_FILES[i])
      const { size } = await sizeOf(path)
      // The workload can truncate its own output file.
      if (size < at[i]) at[i] = 0
      for await (const data of readRange(path, at[i], size)) {
        at[i] += data.length
        yield { stream: STREAMS[i], at: null, data }
        refuseAborted(signal)
      }
    }
    if (!goesOn) return
    await sleep(clock, FOLLOW_MS)
  }
}
