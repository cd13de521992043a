import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { constants } from 'node:os'
import type { ExecRequest, ExecStream } from '../engine.ts'
import { refuse } from './errors.ts'
import { findTool, runTool } from './files.ts'
import { enterArguments, type Mode, type Owner } from './launch.ts'
import { openPipes, type Pipes } from './pipes.ts'
import { isAlive, type ProcessIdentity } from './proc.ts'

/** The host's programs by their full paths: the environment of an exec has the sandbox's PATH, not the host's. */
export interface Tools {
  readonly sh: string
  readonly nsenter: string | null
  readonly script: string | null
  readonly tar: string | null
  readonly stty: string | null
}

export async function findTools(): Promise<Tools> {
  const [sh, nsenter, script, tar, stty] = await Promise.all(
    ['sh', 'nsenter', 'script', 'tar', 'stty'].map(findTool),
  )
  if (!sh) throw refuse('unsupported', 'this machine has no sh')
  return { sh, nsenter: nsenter ?? null, script: script ?? null, tar: tar ?? null, stty: stty ?? null }
}

export interface ExecTarget {
  readonly mode: Mode
  readonly init: ProcessIdentity
  readonly making: string
  /** Files that take the pid, so that limits hold for execs too. */
  readonly cgroupFiles: readonly string[]
  readonly env: Readonly<Record<string, string>>
  /**
   * Where `script` runs: inside gives a terminal of the instance's own, with a name there; outside where the image
   * has none that can do it.
   */
  readonly terminal: 'inside' | 'outside'
  /** Inside the instance; on the host with mode `none`. */
  readonly workingDir: string
  readonly user: Owner | null
}

const ENTER_FAILED = 1

type Terminal = NonNullable<ExecRequest['tty']>

/**
 * Between a terminal of the host and the program: ^C reaches the whole foreground group, and `nsenter` as its parent
 * would die of it before the program does. A trap, unlike an ignored signal, is not inherited.
 */
const PATIENT = `trap : INT QUIT TSTP; "$@"; exit "$?"`

/** Variables that would steer the host's own programs (loader, shell) on the way into the sandbox. */
const STEERING = /^(LD_|GLIBC_|MALLOC_|BASH|GCONV_PATH$|LOCPATH$|NLSPATH$|SHELLOPTS$|PS4$|ENV$|IFS$)/

const RESTORE = [
  'hf_i=0',
  'while eval "hf_v=\\${HOLDFAST_VARIABLE_$hf_i-}" && [ -n "$hf_v" ]; do export "$hf_v"; unset "HOLDFAST_VARIABLE_$hf_i"; hf_i=$((hf_i+1)); done',
  'unset hf_i hf_v; exec "$@"',
].join('; ')
const JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 126; shift; done; shift; exec "$@"'

/** Renames steering variables for the way; a shell inside gives them their names back. */
function disguise(
  env: Readonly<Record<string, string>>,
  command: readonly string[],
): { env: Record<string, string>; command: readonly string[] } {
  const steering = Object.entries(env).filter(([k]) => STEERING.test(k))
  if (steering.length === 0) return { env: { ...env }, command }
  const out = Object.fromEntries(Object.entries(env).filter(([k]) => !STEERING.test(k)))
  for (const [i, [k, v]] of steering.entries()) out[`HOLDFAST_VARIABLE_${i}`] = `${k}=${v}`
  return { env: out, command: ['sh', '-c', RESTORE, 'sh', ...command] }
}

const quote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

/** Gives the program a terminal by `script`, inside or outside. */
function onTerminal(script: string, command: readonly string[], tty: Terminal): string[] {
  const line = `stty rows ${tty.rows} cols ${tty.columns}; exec ${command.map(quote).join(' ')}`
  return [script, '-qfe', '-E', 'always', '-c', line, '/dev/null']
}

function enter(tools: Tools, target: ExecTarget, command: readonly string[], ...more: string[]): string[] {
  if (target.mode === 'none') return [...command]
  if (tools.nsenter === null) throw refuse('unsupported', 'this machine has no nsenter')
  const directory = target.workingDir === '/' ? [] : [`--wdns=${target.workingDir}`]
  const space = enterArguments(target.mode, target.init.pid, target.user)
  return [tools.nsenter, ...space, ...directory, ...more, '--', ...command]
}

function argumentsFor(
  tools: Tools,
  target: ExecTarget,
  command: readonly string[],
  tty: Terminal | undefined,
): string[] {
  const line = (): string[] => {
    if (tty === undefined) return enter(tools, target, command)
    if (target.terminal === 'inside') return enter(tools, target, onTerminal('script', command, tty))
    if (tools.script === null)
      throw refuse(
        'unsupported',
        'neither the image nor this machine has script(1) of util-linux, which terminals need',
      )
    if (target.mode === 'none') return onTerminal(tools.script, command, tty)
    const patient = ['sh', '-c', PATIENT, 'sh', ...command]
    return onTerminal(tools.script, enter(tools, target, patient, '--no-fork'), tty)
  }
  const { cgroupFiles } = target
  return cgroupFiles.length === 0 ? line() : [tools.sh, '-c', JOIN, 'sh', ...cgroupFiles, '--', ...line()]
}

export async function execIn(tools: Tools, target: ExecTarget, request: ExecRequest): Promise<ExecStream> {
  const { tty } = request
  if (request.command.length === 0) throw refuse('invalid', 'there is no command to run')
  const asked = {
    ...target.env,
    ...(tty === undefined ? {} : { TERM: 'xterm', SHELL: '/bin/sh' }),
    ...request.env,
    // What `script` runs its line with: on the host that is not the sandbox's choice.
    ...(tty !== undefined && target.terminal === 'outside' ? { SHELL: '/bin/sh' } : {}),
  }
  const { env, command } = disguise(asked, request.command)
  const [file = '', ...args] = argumentsFor(tools, target, command, tty)
  // A terminal without input still needs an open one: its end would type an end of file.
  const pipes = await openPipes(target.making, request.stdin || tty !== undefined)
  try {
    const child = spawn(file, args, {
      env,
      cwd: target.mode === 'none' ? target.workingDir : '/',
      stdio: [...pipes.child],
      detached: true,
    })
    pipes.handed()
    await once(child, 'spawn')
    const stream = streamOf(child, pipes, (size) => resizeTerminal(tools, child.pid, size))
    // `nsenter` fails with 1 when the instance ends while it enters: then nothing of the program's is known.
    const lost = (status: number | null): boolean =>
      status === ENTER_FAILED && target.mode !== 'none' && !isAlive(target.init)
    return { ...stream, exit: stream.exit.then((status) => (lost(status) ? null : status)) }
  } catch (error) {
    pipes.handed()
    for (const pipe of [pipes.stdin, pipes.stdout, pipes.stderr]) pipe?.destroy()
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT' || code === 'EACCES')
      throw refuse('invalid', `${file} cannot be run: ${(error as Error).message}`, error)
    throw error
  }
}

/** Down the line of first children to the program on the terminal, whose standard input is the terminal itself. */
async function resizeTerminal(
  tools: Tools,
  pid: number | undefined,
  size: { columns: number; rows: number },
): Promise<void> {
  if (tools.stty === null || pid === undefined) return
  let last = pid
  for (let depth = 0; depth < 6; depth++) {
    const children = await readFile(`/proc/${last}/task/${last}/children`, 'utf8').catch(() => '') // ended: nothing to resize
    const next = Number(children.split(' ')[0])
    if (!(next > 0)) break
    last = next
  }
  // Best effort: a program that has just ended has no size any more.
  await runTool(tools.stty, [
    '-F',
    `/proc/${last}/fd/0`,
    'rows',
    String(size.rows),
    'cols',
    String(size.columns),
  ])
}

function statusOf(code: number | null, signal: NodeJS.Signals | null): number | null {
  if (code !== null) return code
  return signal === null ? null : 128 + (constants.signals[signal] ?? 0)
}

/** The two ends joined: the process, whose output was read to its end before its status is told. */
export function streamOf(
  child: ChildProcess,
  pipes: Pipes,
  resize: (size: { columns: number; rows: number }) => Promise<void>,
): ExecStream {
  const { stdin, stdout, stderr } = pipes
  let drop: () => void = () => undefined
  const dropped = new Promise<null>((resolve) => (drop = () => resolve(null)))
  const read = (s: typeof stdout): Promise<void> =>
    new Promise((resolve) => void s.once('close', () => resolve()).once('end', () => resolve()))
  const reads = [read(stdout), read(stderr)]
  const ended = new Promise<number | null>(
    (resolve) => void child.once('exit', (code, signal) => resolve(statusOf(code, signal))),
  )
  const whole = ended.then(async (status) => {
    await Promise.all(reads)
    return status
  })
  // A program that ends before it has read its input breaks that pipe: the write tells whoever waits for it.
  stdin?.on('error', () => undefined)
  return {
    stdout,
    stderr,
    exit: Promise.race([whole, dropped]),
    write: (data) =>
      new Promise((resolve, reject) => {
        if (stdin === null) reject(refuse('invalid', 'this exec has no input'))
        else stdin.write(data, (error) => (error ? reject(error) : resolve()))
      }),
    end: () => void stdin?.end(),
    resize: (columns, rows) => resize({ columns, rows }),
    destroy(error) {
      drop()
      // The program may go on, and nobody waits for it any more: it must not keep this process.
      child.unref()
      stdin?.destroy()
      // Whoever reads the streams hears why; nobody has to.
      for (const s of [stdout, stderr]) s.once('error', () => undefined).destroy(error)
    },
  }
}
