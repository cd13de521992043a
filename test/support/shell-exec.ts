import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, symlink } from 'node:fs/promises'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Engine, ExecRequest, ExecStream } from '../../src/engines/engine.ts'
import { EngineError } from '../../src/model/facts.ts'

/**
 * The `exec` of an engine, and nothing else of one: programs are processes of this machine. It lets the protocol
 * of the lanes be tested on real shells without a container; `sh` is the shell that was asked for.
 */
export interface ShellExec {
  readonly engine: Engine
  /** How many programs were started so far. */
  readonly started: () => number
  /** How many of them have not ended. */
  readonly running: () => number
  /** Breaks every connection, as an instance that dies does, and kills what was started. */
  readonly breakAll: () => void
  /** Drops every connection without a signal, as the death of the control plane does. */
  readonly disconnectAll: () => void
  /** Kills every process group that was started and removes the directory. */
  readonly close: () => Promise<void>
}

export interface ShellExecOptions {
  readonly shell: string
  /** Programs that are on PATH; by default the machine's own. Empty means none, not even `sh`. */
  readonly programs?: readonly string[]
  /** The image's own environment. */
  readonly env?: Readonly<Record<string, string>>
}

export async function createShellExec(o: ShellExecOptions): Promise<ShellExec> {
  const bin = await mkdtemp(join(tmpdir(), 'holdfast-shell-'))
  const children = new Set<ChildProcess>()
  const groups = new Set<number>()
  let started = 0
  const wants = o.programs
  if (wants === undefined || wants.includes('sh')) await symlink(o.shell, join(bin, 'sh'))
  for (const name of wants ?? []) if (name !== 'sh') await symlink(join('/usr/bin', name), join(bin, name))
  const path = wants === undefined ? `${bin}:/usr/local/bin:/usr/bin:/bin` : bin

  const exec = (_id: string, request: ExecRequest): Promise<ExecStream> => {
    const [program = '', ...args] = request.command
    const env = { PATH: path, HOME: '/', ...o.env, ...request.env }
    const child = spawn(program, args, {
      env,
      cwd: request.workingDir ?? '/',
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    if (!request.stdin) child.stdin.end()
    return new Promise((resolve, reject) => {
      child.once('error', (error) =>
        reject(new EngineError('invalid', 'none', `executable file not found: ${error.message}`)),
      )
      child.once('spawn', () => {
        started++
        children.add(child)
        if (child.pid !== undefined) groups.add(child.pid)
        resolve(streamOf(child))
      })
    })
  }
  const each = (fn: (child: ChildProcess) => void): void => {
    for (const child of children) fn(child)
  }
  const kill = (): void => {
    for (const group of groups) killGroup(group)
  }
  return {
    engine: onlyExec(exec),
    started: () => started,
    running: () =>
      [...children].filter((child) => child.exitCode === null && child.signalCode === null).length,
    breakAll: kill,
    disconnectAll: () =>
      each((child) => {
        child.stdin?.destroy()
        child.stdout?.destroy()
        child.stderr?.destroy()
      }),
    async close() {
      kill()
      for (const group of await descendantsWith(bin)) killGroup(group)
      await rm(bin, { recursive: true, force: true })
    },
  }
}

function streamOf(child: ChildProcess): ExecStream {
  const { stdin, stdout, stderr } = child
  if (stdin === null || stdout === null || stderr === null) throw new Error('the program has no pipes')
  // A program that ends takes its input with it; the exit below tells.
  stdin.on('error', () => undefined)
  const exit = new Promise<number | null>((resolve) => {
    child.once('exit', (code, signal) => {
      const status = code ?? (signal === null ? null : 128 + constants.signals[signal])
      // Its output may still be in the pipe; a child of it may hold the pipe for ever.
      const late = setTimeout(() => resolve(status), 500)
      child.once('close', () => {
        clearTimeout(late)
        resolve(status)
      })
    })
  })
  return {
    stdout,
    stderr,
    exit,
    write: (data) =>
      new Promise((resolve, reject) => stdin.write(data, (error) => (error ? reject(error) : resolve()))),
    end: () => stdin.end(),
    resize: () => Promise.reject(new EngineError('unsupported', 'none', 'no terminals here')),
    destroy() {
      stdin.destroy()
      stdout.destroy()
      stderr.destroy()
    },
  }
}

/** Everything but `exec` says by name that it is not here. */
function onlyExec(exec: (id: string, request: ExecRequest) => Promise<ExecStream>): Engine {
  const known = {
    id: 'shell',
    driver: 'local',
    capabilities: {
      pause: false,
      memoryLimit: false,
      cpuLimit: false,
      pidsLimit: false,
      volumeSize: false,
      tty: false,
      lanes: true,
      pull: false,
      dial: false,
      notEnforced: [],
    },
    exec,
  }
  return new Proxy(known as unknown as Engine, {
    get(target, name) {
      if (name in target) return Reflect.get(target, name) as unknown
      return () =>
        Promise.reject(new EngineError('unsupported', 'none', `${String(name)} is not part of this fixture`))
    },
  })
}

/** Session leaders among the processes that were started with our own PATH; they may have left our groups. */
async function descendantsWith(bin: string): Promise<number[]> {
  const found: number[] = []
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    try {
      if ((await readFile(`/proc/${entry}/environ`, 'latin1')).includes(bin)) found.push(Number(entry))
    } catch {
      // It ended while we looked.
    }
  }
  return found
}

function killGroup(pid: number): void {
  for (const target of [-pid, pid]) {
    try {
      process.kill(target, 'SIGKILL')
    } catch {
      // It is gone already, which is what was wanted.
    }
  }
}
