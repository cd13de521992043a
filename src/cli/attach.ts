import { pipeline } from 'node:stream/promises'
import type { Client, ExecOptions, ExecSession } from '@holdfast/client'
import type { Context } from './context.ts'
import { CliError, EXIT } from './errors.ts'
import { rawTerminal, sizeOf } from './terminal.ts'
import { UsageError } from './parse.ts'

export interface AttachOptions {
  readonly command: string[] | string
  readonly interactive: boolean
  readonly tty: boolean
  readonly workingDir?: string
  readonly env?: Record<string, string>
  readonly user?: string
  readonly timeoutSeconds?: number
}

/** A terminal is asked for, so there must be one: checked before anything is started. */
export function requireTerminal(context: Context, tty: boolean): void {
  if (tty && context.io.stdin.isTTY !== true)
    throw new UsageError('-t needs a terminal, and stdin is none', 'Leave -t out.')
}

/** Runs a command in a sandbox on this process's stdin, stdout and stderr. Returns the command's own exit code. */
export async function attach(
  context: Context,
  client: Client,
  id: string,
  options: AttachOptions,
): Promise<number> {
  requireTerminal(context, options.tty)
  const { interactive, tty, ...rest } = options
  const request: ExecOptions = {
    ...rest,
    stdin: interactive,
    ...(tty ? { tty: sizeOf(context.io.stdout) } : {}),
  }
  const session = await client.sandboxes.openExec(id, request)
  return drive(context, session, id, interactive, tty)
}

async function drive(
  context: Context,
  session: ExecSession,
  id: string,
  interactive: boolean,
  tty: boolean,
): Promise<number> {
  const { stdin, stdout, stderr } = context.io
  const undo: (() => void)[] = []
  let interrupted = false
  try {
    if (tty) {
      undo.push(rawTerminal(stdin))
      const onResize = (): void => {
        const { columns, rows } = sizeOf(stdout)
        // A resize that is lost with the connection is told by `exit`.
        session.resize(columns, rows).catch(() => undefined)
      }
      stdout.on('resize', onResize)
      undo.push(() => stdout.off('resize', onResize))
    }
    undo.push(
      context.onInterrupt((count) => {
        interrupted = count > 1
        if (interrupted) session.close()
        // A signal that is lost with the connection is told by `exit`.
        else session.kill('INT').catch(() => undefined)
      }),
    )
    if (interactive) undo.push(feed(stdin, session))
    const [exit] = await Promise.all([
      session.exit,
      pipeline(session.stdout, stdout, { end: false }),
      pipeline(session.stderr, stderr, { end: false }),
    ])
    if (exit.timedOut) throw new CliError(EXIT.timeout, 'The command was ended, because its time was up.')
    if (exit.exitCode !== null) return exit.exitCode
    throw new CliError(
      EXIT.failed,
      `The command's end was not seen: ${exit.lost ?? 'no reason given'}. It may have run in part.`,
      `holdfast explain ${id}`,
    )
  } catch (error) {
    if (interrupted) return EXIT.interrupted
    throw error
  } finally {
    session.close()
    for (const step of undo.toReversed()) step()
  }
}

/** Sends stdin on as fast as the command takes it. The returned function lets go of stdin. */
function feed(stdin: NodeJS.ReadStream, session: ExecSession): () => void {
  let over = false
  const pump = async (): Promise<void> => {
    for await (const chunk of stdin) {
      if (over) return
      await session.write(chunk as Uint8Array)
    }
    if (!over) await session.end()
  }
  // What stops the sending is that the command or the connection has ended; `exit` tells which.
  pump().catch(() => undefined)
  return () => {
    over = true
    stdin.pause()
    stdin.unref?.()
  }
}
