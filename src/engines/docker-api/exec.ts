import type { Duplex } from 'node:stream'
import { sleep } from '../../model/clock.ts'
import { EngineError } from '../../model/facts.ts'
import type { Call, ExecRequest, ExecStream } from '../engine.ts'
import { type Api, budget } from './api.ts'
import type { FreezeGate } from './freeze-gate.ts'
import { createOutput, type Output } from './output.ts'
import { orAfter } from './limit.ts'
import type { ExecInspect } from './types.ts'

/** How long the engine may take to note the end of a program whose output has ended, milliseconds. */
const EXIT_LIMIT_MS = 60_000
const EXIT_POLL_FIRST_MS = 2
const START_POLL_FIRST_MS = 5
const START_POLL_MAX_MS = 100
const EXIT_POLL_MAX_MS = 500
/** One look at an exec, milliseconds. */
const LOOK_LIMIT_MS = 10_000
/** A sequence that no terminal sends: the engine's own, ^P^Q, would hold back every ^P. */
const DETACH_KEYS = 'ctrl-_,ctrl-^,ctrl-_,ctrl-^,ctrl-@'

export function startExec(
  api: Api,
  gate: FreezeGate,
  id: string,
  request: ExecRequest,
  call: Call,
): Promise<ExecStream> {
  const rest = budget(api.clock, call)
  return gate.starting(id, call, () => open(api, id, request, rest))
}

async function open(api: Api, id: string, request: ExecRequest, rest: () => Call): Promise<ExecStream> {
  const what = `running a program in instance ${id}`
  const created = await api.get<{ Id: string }>({
    what,
    method: 'POST',
    path: `/containers/${encodeURIComponent(id)}/exec`,
    json: execBody(request),
    mutation: true,
    call: rest(),
  })
  const exec = created.Id
  const socket = await api.hijack({
    what,
    method: 'POST',
    path: `/exec/${exec}/start`,
    json: { Detach: false, Tty: request.tty !== undefined },
    mutation: true,
    call: rest(),
  })
  const output = createOutput(socket, request.tty === undefined ? 'framed' : 'raw')
  try {
    await running(api, exec, request, output, what, rest)
  } catch (error) {
    output.destroy()
    throw error
  }
  return streamOf(api, exec, request, socket, output, what)
}

function execBody(request: ExecRequest): unknown {
  return {
    AttachStdin: request.stdin,
    AttachStdout: true,
    AttachStderr: true,
    Tty: request.tty !== undefined,
    ...(request.tty === undefined ? {} : { DetachKeys: DETACH_KEYS }),
    Cmd: request.command,
    ...(request.env === undefined
      ? {}
      : { Env: Object.entries(request.env).map(([name, value]) => `${name}=${value}`) }),
    ...(request.workingDir === undefined ? {} : { WorkingDir: request.workingDir }),
    ...(request.user === undefined ? {} : { User: request.user }),
  }
}

/**
 * Resolves when the program runs or has run. The engine upgrades the connection before it starts the program and then
 * writes its failure into the output. A resize is answered when the program is there (it does nothing without a
 * terminal), so that no polling is needed; the end of the output tells of one that came to nothing.
 */
async function running(
  api: Api,
  exec: string,
  request: ExecRequest,
  output: Output,
  what: string,
  rest: () => Call,
): Promise<void> {
  const { columns, rows } = request.tty ?? { columns: 80, rows: 24 }
  const resized = resize(api, exec, columns, rows, rest()).then(
    () => 'running' as const,
    (error: unknown) => {
      if (error instanceof EngineError && (error.kind === 'timeout' || error.kind === 'aborted')) throw error
      return 'not told' as const
    },
  )
  const first = await Promise.race([resized, output.ended.then(() => 'ended' as const)])
  if (first === 'running' || (await everRan(api, exec, rest))) return
  const late = (): EngineError =>
    new EngineError('timeout', 'unknown', `${what}: why it was not started was not told in time`)
  await orAfter(api.clock, Math.min(rest().limitMs, LOOK_LIMIT_MS), output.ended, late)
  const reason = (output.stdout.read() as Buffer | null)?.toString().trim() ?? ''
  throw new EngineError(
    'invalid',
    'none',
    `${what}: ${reason === '' ? 'the program was not started' : reason}`,
  )
}

/** True once the program has a process id, which it keeps after its end; false once the engine has given it up. */
async function everRan(api: Api, exec: string, rest: () => Call): Promise<boolean> {
  for (let wait = START_POLL_FIRST_MS; ; wait = Math.min(wait * 2, START_POLL_MAX_MS)) {
    const look = await inspectExec(api, exec, rest())
    if (look === null)
      throw new EngineError(
        'failed',
        'unknown',
        'the engine forgot an exec while it was started: its instance has ended',
      )
    if ((look.Pid ?? 0) > 0) return true
    // The engine says `Running` already while it tries to start the program.
    if (!look.Running) return false
    await sleep(api.clock, wait)
  }
}

async function resize(api: Api, exec: string, columns: number, rows: number, call: Call): Promise<void> {
  await api.get({
    what: 'setting the size of a terminal',
    method: 'POST',
    path: `/exec/${exec}/resize`,
    query: { w: columns, h: rows },
    call,
  })
}

/** Null when the engine has forgotten it, which it does with its instance. */
async function inspectExec(api: Api, exec: string, call: Call): Promise<ExecInspect | null> {
  const answer = await api.ask({
    what: 'inspecting an exec',
    method: 'GET',
    path: `/exec/${exec}/json`,
    call,
  })
  if (answer.ok) return answer.json as ExecInspect
  if (answer.refusal.status === 404 || answer.refusal.status === 409) return null
  throw answer.error
}

function streamOf(
  api: Api,
  exec: string,
  request: ExecRequest,
  socket: Duplex,
  output: Output,
  what: string,
): ExecStream {
  const lost = (cause?: unknown): EngineError =>
    new EngineError('unreachable', 'unknown', `${what}: the connection is closed`, { cause })
  return {
    stdout: output.stdout,
    stderr: output.stderr,
    write(data) {
      if (!request.stdin)
        return Promise.reject(new EngineError('invalid', 'none', `${what}: it has no standard input`))
      return new Promise((resolve, reject) => {
        socket.write(data, (error) =>
          error === null || error === undefined ? resolve() : reject(lost(error)),
        )
      })
    },
    end: () => void socket.end(),
    exit: exitOf(api, exec, output),
    resize: (columns, rows) => resize(api, exec, columns, rows, { limitMs: LOOK_LIMIT_MS }),
    destroy: (error) => output.destroy(error),
  }
}

/** Never rejects: what cannot be told is null. */
async function exitOf(api: Api, exec: string, output: Output): Promise<number | null> {
  await output.ended
  if (output.dropped()) return null
  const end = api.clock.monotonic() + EXIT_LIMIT_MS
  try {
    for (let wait = EXIT_POLL_FIRST_MS; ; wait = Math.min(wait * 2, EXIT_POLL_MAX_MS)) {
      const look = await inspectExec(api, exec, { limitMs: LOOK_LIMIT_MS })
      if (look === null) return null
      if (!look.Running) return look.ExitCode
      if (api.clock.monotonic() > end) return null
      await sleep(api.clock, wait)
    }
  } catch {
    // The engine cannot be asked: null is what the contract has for that.
    return null
  }
}
