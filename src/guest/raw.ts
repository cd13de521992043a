import type { Readable } from 'node:stream'
import type { Engine, ExecStream } from '../engines/engine.ts'
import { createOutput } from './marker.ts'
import { OPEN_LIMIT_MS, reason, type JobEnd } from './lane.ts'
import { EXEC_MARK, rawCommand, type LaneCommandText } from './script.ts'

/** A pid and its newline; a terminal adds a carriage return. */
const PID_LINE_MAX_BYTES = 24

/** A command that runs as an exec of its own. */
export interface RawJob {
  /** The group's leader; null when the image has no shell to tell it, or it ended before it could. */
  readonly pid: Promise<number | null>
  readonly stdout: Readable
  readonly stderr: Readable
  readonly end: Promise<JobEnd>
  readonly exec: ExecStream
}

export interface RawRequest extends LaneCommandText {
  readonly user?: string | undefined
  readonly tty?: { readonly columns: number; readonly rows: number } | undefined
}

/** Runs a command through the engine's plain exec. `shell`: put `sh` around it, so that the group's pid can be told. */
export async function startRaw(
  engine: Engine,
  id: string,
  mark: string,
  request: RawRequest,
  shell: boolean,
): Promise<RawJob> {
  const exec = await engine.exec(
    id,
    {
      command: rawCommand(request.command, shell),
      env: { ...request.env, [EXEC_MARK]: mark },
      // A terminal is one for input as well, or programs on it find none.
      stdin: request.stdin !== 'none' || request.tty !== undefined,
      ...(request.workingDir === undefined ? {} : { workingDir: request.workingDir }),
      ...(request.user === undefined ? {} : { user: request.user }),
      ...(request.tty === undefined ? {} : { tty: request.tty }),
    },
    { limitMs: OPEN_LIMIT_MS },
  )
  const { pid, stdout } = shell ? splitPid(exec.stdout) : { pid: Promise.resolve(null), stdout: exec.stdout }
  const end = exec.exit.then(
    (status): JobEnd => (status === null ? { lost: 'the engine could not tell the status' } : { status }),
    (error: unknown): JobEnd => ({ lost: `the connection into the instance broke: ${reason(error)}` }),
  )
  return { pid, stdout, stderr: exec.stderr, end, exec }
}

/** Takes the first line, the pid, off an output. When that line is no number, it is output like the rest. */
function splitPid(source: Readable): { pid: Promise<number | null>; stdout: Readable } {
  const output = createOutput()
  const found = Promise.withResolvers<number | null>()
  const resume = (): void => {
    source.resume()
  }
  const pass = (data: Buffer): void => {
    if (!output.push(data, resume)) source.pause()
  }
  let head: Buffer | null = Buffer.alloc(0)
  const settle = (rest: Buffer, pid: number | null): void => {
    head = null
    found.resolve(pid)
    pass(rest)
  }
  source.on('data', (chunk: Buffer) => {
    if (head === null) return pass(chunk)
    head = Buffer.concat([head, chunk])
    const newline = head.indexOf(10)
    if (newline === -1 && head.length <= PID_LINE_MAX_BYTES) return
    const line = /^(\d+)\r?$/.exec(head.toString('latin1', 0, Math.max(newline, 0)))
    if (line === null) settle(head, null)
    else settle(head.subarray(newline + 1), Number(line[1]))
  })
  const finish = (): void => {
    if (head !== null) settle(head, null)
    output.end()
  }
  source.on('end', finish)
  source.on('close', finish)
  source.on('error', finish)
  return { pid: found.promise, stdout: output.stream }
}
