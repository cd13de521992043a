import type { Readable } from 'node:stream'
import type { CommandRequest, Guest, GuestTarget } from '../../guest/guest.ts'
import type { ExecBody, ExecOnceBody, ExecResultWire } from '../schemas/inside.ts'

/** Bytes of each output that one answer carries; more is what the WebSocket is for. */
export const OUTPUT_MAX: number = 2 ** 20

export function commandOf(body: ExecBody, stdin: CommandRequest['stdin']): CommandRequest {
  return {
    command: typeof body.command === 'string' ? { script: body.command } : body.command,
    workingDir: body.workingDir,
    env: body.env,
    user: body.user,
    stdin,
    timeoutMs: typeof body.timeoutSeconds === 'number' ? Math.ceil(body.timeoutSeconds * 1000) : null,
  }
}

interface Collected {
  readonly bytes: Buffer
  readonly truncated: boolean
}

/** Reads to the end, also beyond what is kept: a command whose output is not read would block. */
async function collect(stream: Readable): Promise<Collected> {
  const chunks: Buffer[] = []
  let kept = 0
  let truncated = false
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    const room = OUTPUT_MAX - kept
    if (chunk.length > room) truncated = true
    if (room <= 0) continue
    const part = chunk.length > room ? chunk.subarray(0, room) : chunk
    chunks.push(part)
    kept += part.length
  }
  return { bytes: Buffer.concat(chunks), truncated }
}

/** UTF-8 where the bytes are that. A character that the cap cut in half is dropped with the rest. */
function textOf(c: Collected): { text: string; base64: boolean } {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(c.bytes, {
      stream: c.truncated,
    })
    return { text, base64: false }
  } catch {
    // Not text: the caller gets the bytes.
    return { text: c.bytes.toString('base64'), base64: true }
  }
}

/** Runs a command to its end. It is cancelled with its whole group when the signal is aborted. */
export async function execOnce(
  guest: Guest,
  target: GuestTarget,
  body: ExecOnceBody,
  signal: AbortSignal,
): Promise<ExecResultWire> {
  const stdin = body.stdin === undefined ? 'none' : new TextEncoder().encode(body.stdin)
  const run = await guest.run(target, commandOf(body, stdin))
  const cancels: Promise<void>[] = []
  const cancel = (): void => {
    const cancelled = run.cancel()
    // Awaited below; until then its rejection is not an unhandled one.
    cancelled.catch(() => undefined)
    cancels.push(cancelled)
  }
  if (signal.aborted) cancel()
  else signal.addEventListener('abort', cancel, { once: true })
  try {
    const [stdout, stderr, exit] = await Promise.all([collect(run.stdout), collect(run.stderr), run.exit])
    await Promise.all(cancels)
    const out = textOf(stdout)
    const err = textOf(stderr)
    return {
      exitCode: exit.code,
      stdout: out.text,
      stderr: err.text,
      ...(out.base64 ? { stdoutEncoding: 'base64' as const } : {}),
      ...(err.base64 ? { stderrEncoding: 'base64' as const } : {}),
      truncated: stdout.truncated || stderr.truncated,
      timedOut: exit.timedOut,
      lost: exit.lost,
    }
  } finally {
    signal.removeEventListener('abort', cancel)
  }
}
