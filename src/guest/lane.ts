import type { Readable } from 'node:stream'
import type { Engine, ExecStream } from '../engines/engine.ts'
import type { Clock } from '../model/clock.ts'
import { EngineError } from '../model/facts.ts'
import type { Ids } from '../model/ids.ts'
import { createMarkerReader, createOutput, type MarkerReader, type Output } from './marker.ts'
import { bootText, jobLine, LANE_MARK, probeLine, type LaneCommandText } from './script.ts'

/** How long an engine may take to start a shell and the shell to answer. */
export const OPEN_LIMIT_MS = 30_000
/** How long a lane may take from a line to the command's pid; bash reads a 1 MiB line byte by byte in about a second. */
const START_LIMIT_MS = 60_000
/** How long a lane that was asked to end may take before its connection is dropped. */
const CLOSE_LIMIT_MS = 5_000
/** How long after its output's end a shell's status is waited for. */
const STATUS_LIMIT_MS = 2_000
/** What is kept of a shell's own complaint. */
const COMPLAINT_MAX_BYTES = 2_048

/** The image has no usable `sh`: commands need the engine's plain exec. */
export class NoShell extends Error {
  override readonly name: string = 'NoShell'
}

/** The shell refused before the program was started: nothing has run. */
export class NotStarted extends Error {
  override readonly name: string = 'NotStarted'
}

export type JobEnd = { readonly status: number } | { readonly lost: string }

/** A command that was started in a lane. */
export interface LaneJob {
  /** The command's leader in the instance's own numbering. */
  readonly pid: number
  readonly stdout: Readable
  readonly stderr: Readable
  /** Resolves when the status is known and both outputs were handed over; never rejects. */
  readonly end: Promise<JobEnd>
  /** Nobody reads any more: lets the command run on, or its end be seen. */
  discard(): void
}

/**
 * `held`: the command ended, and a background child has the lane's output. `leaving`: one-shot, ends by itself.
 */
export type LaneState = 'idle' | 'running' | 'held' | 'leaving' | 'ended'

export interface Lane {
  readonly state: LaneState
  /** How a command's group is named: its own (`setsid`), the lane's own, or not at all. */
  readonly grouping: 'own' | 'lane' | 'none'
  /** The pid of the shell. */
  readonly pid: number
  /** Runs one command in an idle lane. Rejects with `NotStarted`, or an `EngineError` when the lane was lost first. */
  start(text: LaneCommandText): Promise<LaneJob>
  /** Asks a held lane whether its children are gone. */
  probe(): void
  write(data: Uint8Array): Promise<void>
  endInput(): void
  /** Ends the shell once nothing holds its output. */
  close(): void
  /** Drops the connection at once. */
  destroy(why: string): void
}

export interface LaneOptions {
  readonly engine: Engine
  readonly engineId: string
  readonly user: string | undefined
  readonly mark: string
  readonly clock: Clock
  readonly ids: Ids
  /** Called after each change of state. */
  readonly onState: (lane: Lane) => void
}

interface Current {
  readonly stdout: Output
  readonly stderr: Output
  settleEnd: (end: JobEnd) => void
  settleStart: (error: Error | null, pid: number) => void
  status: number | null
  /** Outputs whose end marker was not seen yet. */
  open: number
}

/** Opens a shell in the instance. Rejects with `NoShell` or `EngineError`. */
export async function openLane(o: LaneOptions): Promise<Lane> {
  const exec = await startShell(o)
  const hello = newTag(o.ids)
  let state: LaneState = 'running'
  let current: Current | null = null
  let endedWhy: string | null = null

  const onBroken = (why: string): void => lane.destroy(why)
  const out = createMarkerReader(exec.stdout, onBroken)
  const err = createMarkerReader(exec.stderr, onBroken)
  const setState = (next: LaneState): void => {
    if (state === 'ended' || state === next) return
    state = next
    o.onState(lane)
  }
  const lose = (why: string): void => {
    if (state === 'ended') return
    endedWhy = why
    out.flush()
    err.flush()
    const job = current
    current = null
    if (job !== null) {
      job.stdout.end()
      job.stderr.end()
      job.settleStart(new EngineError('failed', 'unknown', why), 0)
      job.settleEnd(job.status === null ? { lost: why } : { status: job.status })
    }
    setState('ended')
  }
  watchEnd(exec, o.clock, lose)

  /** After a command or a probe: the lane's word on whether something still holds its output. */
  const onFree = (rest: string): void => setState(rest === ' free' ? 'idle' : 'held')

  const start = (text: LaneCommandText): Promise<LaneJob> => {
    const tag = newTag(o.ids)
    const line = jobLine(tag, text)
    const job = newCurrent(o.clock, () =>
      lane.destroy(`the command did not start within ${START_LIMIT_MS} ms`),
    )
    current = job.state
    setState('running')
    const outputDone = (output: Output): void => {
      output.end()
      job.state.open--
      if (job.state.open > 0 || job.state.status === null) return
      if (current === job.state) current = null
      job.state.settleEnd({ status: job.state.status })
      if (text.stdin === 'stream') setState('leaving')
    }
    const onStatus = (rest: string): void => {
      job.state.status = Number(rest)
      // The free line may come in the same chunk, and the state must not turn idle while the reader lacks stderr's end.
      out.expect(tag, null, (free) => {
        void job.end.then(() => onFree(free))
      })
      outputDone(job.state.stdout)
    }
    out.expect(tag, null, (first) => {
      if (first.startsWith(` ${tag}`)) {
        const complaint = collect(job.state.stderr.stream)
        void job.end.then(async () => {
          job.state.settleStart(new NotStarted((await complaint).trim()), 0)
        })
        onStatus(first.slice(tag.length + 1))
        return
      }
      job.state.settleStart(null, Number(first))
      out.expect(tag, job.state.stdout, onStatus)
    })
    err.expect(tag, job.state.stderr, () => outputDone(job.state.stderr))
    exec
      .write(Buffer.from(line))
      .catch((error: unknown) => lane.destroy(`the lane took no input: ${reason(error)}`))
    return job.started
  }

  const lane: Lane = {
    get state() {
      return state
    },
    get grouping() {
      return grouping
    },
    get pid() {
      return pid
    },
    start: (text) => (state === 'idle' ? start(text) : Promise.reject(lostBefore(endedWhy))),
    probe() {
      if (state !== 'held') return
      const tag = newTag(o.ids)
      out.expect(tag, null, (rest) => {
        if (rest === ' free') onFree(rest)
        else o.onState(lane)
      })
      exec.write(Buffer.from(probeLine(tag))).catch((error: unknown) => lane.destroy(reason(error)))
    },
    write: (data) => exec.write(data),
    endInput: () => exec.end(),
    close() {
      if (state === 'ended') return
      exec.end()
      o.clock.after(CLOSE_LIMIT_MS, () => {
        if (state === 'idle') lane.destroy('the lane did not end when it was closed')
      })
    },
    destroy(why) {
      lose(why)
      exec.destroy()
    },
  }
  let pid = 0
  let grouping: Lane['grouping'] = 'none'
  const greeting = await greet(o, exec, out, err, hello, () => endedWhy)
  pid = greeting.pid
  grouping = greeting.setsid ? 'own' : greeting.group === greeting.pid ? 'lane' : 'none'
  setState('idle')
  return lane
}

async function startShell(o: LaneOptions): Promise<ExecStream> {
  try {
    return await o.engine.exec(
      o.engineId,
      {
        command: ['sh'],
        env: { [LANE_MARK]: o.mark },
        stdin: true,
        ...(o.user === undefined ? {} : { user: o.user }),
      },
      { limitMs: OPEN_LIMIT_MS },
    )
  } catch (error) {
    if (error instanceof EngineError && saysNoProgram(error.message)) throw new NoShell(error.message)
    throw error
  }
}

/** Sends the boot text and waits for its answer: what the shell can do. */
function greet(
  o: LaneOptions,
  exec: ExecStream,
  out: MarkerReader,
  err: MarkerReader,
  tag: string,
  ended: () => string | null,
): Promise<{ pid: number; group: number; setsid: boolean }> {
  const heard: [Output, Output] = [createOutput(), createOutput()]
  return new Promise((resolve, reject) => {
    const stop = o.clock.after(OPEN_LIMIT_MS, () =>
      give(new EngineError('timeout', 'none', `sh did not answer within ${OPEN_LIMIT_MS} ms`)),
    )
    let answered = false
    const give = (error: Error): void => {
      if (answered) return
      answered = true
      stop()
      exec.destroy()
      reject(error)
    }
    out.expect(tag, heard[0], (rest) => {
      stop()
      err.flush()
      const [pid, group, setsid, sight] = rest.trim().split(' ')
      if (sight !== 'sees')
        give(new NoShell('the shell cannot read /proc, so it cannot tell when a lane is free'))
      answered = true
      resolve({ pid: Number(pid), group: Number(group), setsid: setsid === 'setsid.' })
    })
    // No tag can equal this one: everything on stderr before the greeting is a complaint.
    err.expect(newTag(o.ids), heard[1], () => undefined)
    exec.write(Buffer.from(bootText(tag))).catch(() => {
      // The exit below says why; a shell that ended takes no input.
    })
    exec.exit.then(
      async (code) => {
        if (answered) return
        for (const output of heard) output.end()
        const said = (await Promise.all(heard.map((output) => collect(output.stream)))).join('').trim()
        // An engine says 126 also of an instance that ended meanwhile; its words tell the two apart.
        const unsaid = said === '' || /permission denied/i.test(said)
        if (saysNoProgram(said) || (unsaid && (code === 127 || code === 126)))
          give(new NoShell(said || `sh ended with ${code}`))
        else
          give(
            new EngineError(
              // Without a status the connection was lost, not the shell: the command may be sent again.
              code === null ? 'unreachable' : 'failed',
              'none',
              `no shell could be opened: ${said || ended() || `sh ended with ${code ?? 'no status'}`}`,
            ),
          )
      },
      (error: unknown) =>
        give(new EngineError('unreachable', 'none', `no shell could be opened: ${reason(error)}`)),
    )
  })
}

/** A lane ends when its shell ends, even while a child keeps the connection open, or when the connection does. */
function watchEnd(exec: ExecStream, clock: Clock, lose: (why: string) => void): void {
  exec.exit.then(
    (code) => lose(`the lane's shell ended (status ${code ?? 'unknown'})`),
    (error: unknown) => lose(`the connection into the instance broke: ${reason(error)}`),
  )
  for (const stream of [exec.stdout, exec.stderr])
    stream.on('error', (error: Error) => lose(`the connection into the instance broke: ${error.message}`))
  exec.stdout.on('close', () => {
    // The status follows the end of the output, and says more.
    clock.after(STATUS_LIMIT_MS, () => lose('the connection into the instance ended'))
  })
}

function newCurrent(
  clock: Clock,
  onSlow: () => void,
): { state: Current; started: Promise<LaneJob>; end: Promise<JobEnd> } {
  const end = Promise.withResolvers<JobEnd>()
  const started = Promise.withResolvers<LaneJob>()
  const stdout = createOutput()
  const stderr = createOutput()
  const stopTimer = clock.after(START_LIMIT_MS, onSlow)
  const state: Current = {
    stdout,
    stderr,
    status: null,
    open: 2,
    settleEnd: end.resolve,
    settleStart(error, pid) {
      stopTimer()
      if (error !== null) started.reject(error)
      else
        started.resolve({
          pid,
          stdout: stdout.stream,
          stderr: stderr.stream,
          end: end.promise,
          discard() {
            stdout.discard()
            stderr.discard()
          },
        })
    },
  }
  return { state, started: started.promise, end: end.promise }
}

/** The first bytes of a stream that is about to end, as text. */
async function collect(stream: Readable): Promise<string> {
  let text = ''
  for await (const chunk of stream)
    if (text.length < COMPLAINT_MAX_BYTES) text += (chunk as Buffer).toString()
  return text.slice(0, COMPLAINT_MAX_BYTES)
}

/** 160 bits, so that no output can contain it by chance, and in no argument list. */
function newTag(ids: Ids): string {
  return ids.next() + ids.next()
}

function lostBefore(why: string | null): EngineError {
  return new EngineError(
    'failed',
    'none',
    `the lane was lost before the command was sent: ${why ?? 'it is in use'}`,
  )
}

/**
 * That there is no `sh`, in an engine's words. A path of the kernel's that is "not there" is an instance that ends
 * meanwhile: whoever took that for an image without a shell would refuse scripts from then on.
 */
function saysNoProgram(text: string): boolean {
  return (
    /executable file not found|not found in \$PATH/i.test(text) ||
    (/no such file or directory/i.test(text) && !/\/proc\/|\/sys\/|\/run\/|cgroup/.test(text))
  )
}

export function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
