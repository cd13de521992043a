import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { EngineError } from '../../model/facts.ts'
import type { Work } from './errors.ts'
import { hostEnvironment, runTool } from './files.ts'
import { parseStat, type ProcessIdentity, signal, statOf } from './proc.ts'

/**
 * How instances are kept apart. `identity`: a user namespace with all ids mapped to themselves, as root. `single`: a
 * user namespace with the server's own user as its root. `bare`: root's namespaces without a user namespace, where
 * the kernel gives none. `none`: plain processes.
 */
export type Mode = 'identity' | 'single' | 'bare' | 'none'

export const TAG_VARIABLE = 'HOLDFAST_INSTANCE_TAG'

export interface Owner {
  readonly uid: number
  readonly gid: number
}

export interface Launch {
  readonly mode: Mode
  /** The instance's directory: holds `fstab`, `root`, `env.sh` and `status`. */
  readonly dir: string
  readonly hostname: string
  /** With mode `none`: what its processes carry in their environment, process 1 and what is not yet a program too. */
  readonly tag: string
  readonly stdio: readonly [number | 'ignore' | 'pipe', number | 'pipe', number | 'pipe']
  /** Survives this process. */
  readonly detached: boolean
  /** Called while the namespaces are made: writes `fstab` and `env.sh`. */
  readonly furnish: () => Promise<Furnished>
  /** Called while process 1 mounts; it has no children before this resolves. */
  readonly enter: (init: ProcessIdentity) => Promise<void>
  /** Called while the last of the setup is done. The workload starts when this resolves, and never when it rejects. */
  readonly ready: (init: ProcessIdentity, work: ProcessIdentity) => Promise<void>
}

export interface Furnished {
  /** Whom the workload runs as; null as the instance's root. */
  readonly user: Owner | null
  /** The host's `umount` where the tree shows it read-only: nothing of a sandbox's own may run that early. */
  readonly umount: string | null
}

export interface Launched {
  readonly child: ChildProcess
  readonly init: ProcessIdentity
  readonly work: ProcessIdentity
}

/** Descriptors of the script: 2 (later 8) reports to us, 3 the workload's stderr, 4 lets the next stage go,
 * 5 status, 6 environment, 7 lets the pivot go. */
const WORKLOAD = `
read -r hf </proc/self/stat || hf="$(sh -c 'echo $PPID')"
echo "work $hf" >&8
echo 300 >/proc/self/oom_score_adj
. /dev/fd/6
read -r hf <&4 || { echo aborted >&5; exit 1; }
unset hf
cd -- "$1" 2>&3 || exit 126
shift
exec "$@" 2>&3 3>&- 4<&- 5>&- 6<&- 7<&- 8>&-
`

/**
 * Process 1. It mounts with the host's programs, then its children pivot; it keeps running as the host's shell, so an
 * image needs none. The workload is a foreground child (a background one would ignore INT) that waits until the old
 * root is gone. The end of process 1 ends every process of the namespace. Its status is overwritten in place, so that
 * a full disk cannot lose it.
 */
const NAMESPACES = `
umask 022
read -r s </proc/self/stat && echo "init $s" >&2
read -r s u m <&4 || exit 1
hostname -- "$1" 2>/dev/null &
mount -a -T "$PWD/fstab" || exit 1
wait
read -r s <&4 || exit 1
{ read -r s <&7 && cd root && pivot_root . . && { [ "$m" = - ] || "$m" -l / 2>/dev/null; echo ready; }; } >&2 3>&- 4<&- 5>&- 6<&- &
exec 8>&2 2>/dev/null
if [ "$u" != - ]; then setpriv --reuid "\${u%:*}" --regid "\${u#*:}" --clear-groups sh -c "$2"
else ( eval "$2" ); fi
s=$?
printf '%-9s\\n' "$s" >&5
exit "$s"
`

/** The same without namespaces: at the workload's end its process group, this monitor last, is killed. */
const PLAIN = `
umask 022
exec 8>&2 2>/dev/null
echo init >&8
read -r s <&4 || exit 1
echo ready >&8
( eval "$2" )
s=$?
printf '%-9s\\n' "$s" >&5
kill -KILL 0
`

/** The part of `nsenter`'s arguments that names whose namespaces. No `--root` or `--wd`: joining the mount namespace
 * already leads to its root, and `--wd=/` would be opened before, as the host's. */
export function enterArguments(mode: Mode, pid: number, user: Owner | null, mountsOnly = false): string[] {
  const credentials =
    user !== null
      ? ['--setuid', String(user.uid), '--setgid', String(user.gid)]
      : mode === 'bare'
        ? []
        : ['--preserve-credentials']
  const space = mode === 'bare' ? [] : ['--user']
  return [
    ...space,
    ...credentials,
    '--mount',
    ...(mountsOnly ? [] : ['--pid', '--uts', '--ipc']),
    '--target',
    String(pid),
  ]
}

function unshareArguments(mode: Mode): string[] {
  const space = mode === 'bare' ? [] : ['--user']
  return [...space, '--mount', '--pid', '--uts', '--ipc', '--fork', '--propagation', 'private']
}

/** Gives the new user namespace its ids. Done from here, because mapping all of them takes root's power outside. */
async function mapIds(mode: Mode, pid: number): Promise<void> {
  if (mode === 'identity') {
    for (const map of ['uid_map', 'gid_map']) await writeFile(`/proc/${pid}/${map}`, '0 0 4294967295\n')
  } else if (mode === 'single') {
    await writeFile(`/proc/${pid}/uid_map`, `0 ${process.getuid?.() ?? 0} 1\n`)
    await writeFile(`/proc/${pid}/setgroups`, 'deny')
    await writeFile(`/proc/${pid}/gid_map`, `0 ${process.getgid?.() ?? 0} 1\n`)
  }
}

/** The old root lies on top of the new one after the pivot: who joins the namespace now finds the host's programs there. */
async function dropOldRoot(mode: Mode, init: ProcessIdentity): Promise<void> {
  const roots = (await readFile(`/proc/${init.pid}/mountinfo`, 'utf8'))
    .split('\n')
    .filter((l) => l.split(' ')[4] === '/')
  if (roots.length === 1) return
  const done = await runTool('nsenter', [...enterArguments(mode, init.pid, null, true), 'umount', '-l', '/'])
  if (done.code !== 0)
    throw new Error(`the host's root could not be taken out of the instance: ${done.stderr}`)
}

async function settled(mode: Mode, init: ProcessIdentity, reports: Reports): Promise<void> {
  await reports.next('ready')
  if (mode !== 'none') await dropOldRoot(mode, init)
}

interface Reports {
  /** The rest of the line that begins with `word`. Rejects with what the setup said when it ends before. */
  next(word: string): Promise<string>
}

function readReports(child: ChildProcess, pipe: Duplex): Reports {
  const lines: string[] = []
  let rest = ''
  let ended: string | null = null
  let wake: () => void = () => undefined
  const end = (why: string): void => {
    ended ??= why
    wake()
  }
  pipe.setEncoding('utf8')
  pipe.on('data', (text: string) => {
    const parts = (rest + text).split('\n')
    rest = parts.pop() ?? ''
    lines.push(...parts)
    wake()
  })
  pipe.on('error', (error) => end(error.message))
  pipe.on('close', () => end('it ended'))
  child.on('error', (error) => end(error.message))
  return {
    async next(word) {
      for (;;) {
        const at = lines.findIndex((l) => l === word || l.startsWith(`${word} `))
        if (at >= 0) return (lines.splice(at, 1)[0] ?? '').slice(word.length + 1)
        if (ended !== null) throw new Error([...lines, rest].filter((l) => l !== '').join('; ') || ended)
        await new Promise<void>((resolve) => (wake = resolve))
      }
    },
  }
}

function identify(mode: Mode, report: string, fallback: number | undefined): ProcessIdentity {
  // Without /proc the report is a bare pid, or nothing but the word where the process is our own child.
  const stat = report.includes('(') ? parseStat(report) : statOf(Number(report || fallback))
  if (stat === null) throw new Error(`the ${mode} process ended while it was set up`)
  return { pid: stat.pid, start: stat.start }
}

/**
 * Starts a workload that is not our child. Until `ready` resolves nothing of it runs; when this process dies before,
 * the setup ends by itself.
 */
export async function launch(request: Launch, work: Work): Promise<Launched> {
  const { mode, dir } = request
  const [stdin, stdout, stderr] = request.stdio
  const text = mode === 'none' ? PLAIN : NAMESPACES
  const script = ['sh', '-c', text, 'holdfast-init', request.hostname, WORKLOAD]
  const [command = 'sh', ...args] =
    mode === 'none' ? script : ['unshare', ...unshareArguments(mode), ...script]
  const opened: number[] = []
  const descriptor = (name: string, flags: string): number => {
    const fd = openSync(join(dir, name), flags, 0o644)
    opened.push(fd)
    return fd
  }
  let child: ChildProcess
  try {
    work.fence()
    child = spawn(command, args, {
      cwd: dir,
      env: mode === 'none' ? { ...hostEnvironment(), [TAG_VARIABLE]: request.tag } : hostEnvironment(),
      detached: request.detached,
      stdio: [
        stdin,
        stdout,
        'pipe',
        stderr,
        'pipe',
        descriptor('status', 'r+'),
        descriptor('env.sh', 'a+'),
        'pipe',
      ],
    })
  } finally {
    for (const fd of opened) closeSync(fd)
  }
  const stdio: readonly unknown[] = child.stdio
  const [report, go, pivot] = [stdio[2], stdio[4], stdio[7]] as Duplex[]
  if (report === undefined || go === undefined || pivot === undefined)
    throw new Error('no pipes to the new process')
  const pipes = [report, go, pivot]
  for (const pipe of pipes) pipe.on('error', () => undefined) // the end of `report` tells what there is to tell
  let init: ProcessIdentity | null = null
  try {
    const reports = readReports(child, report)
    const furnished = request.furnish()
    furnished.catch(() => undefined) // heard below, unless the setup has failed before
    init = identify(mode, await reports.next('init'), child.pid)
    await mapIds(mode, init.pid)
    const { user, umount } = await furnished
    go.write(`go ${user === null ? '-' : `${user.uid}:${user.gid}`} ${umount ?? '-'}\n`)
    await request.enter(init)
    if (mode !== 'none') go.write('go\n')
    const job = identify(mode, await reports.next('work'), undefined)
    pivot.write('go\n')
    await Promise.all([request.ready(init, job), settled(mode, init, reports)])
    work.signal.throwIfAborted()
    work.fence()
    await new Promise<void>((resolve, reject) =>
      go.write('go\n', (error) => (error ? reject(error) : resolve())),
    )
    return { child, init, work: job }
  } catch (error) {
    // The workload was never let go: whatever exists of the setup ends here, without a trace in the instance.
    if (init === null || !signal(init, 'SIGKILL')) child.kill('SIGKILL')
    if (error instanceof EngineError) throw error
    throw new EngineError('failed', 'none', `the instance could not be set up: ${(error as Error).message}`, {
      cause: error,
    })
  } finally {
    for (const pipe of pipes) pipe.destroy()
    if (request.detached) child.unref()
  }
}
