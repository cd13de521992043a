import type { Readable } from 'node:stream'
import type { FastifyBaseLogger } from 'fastify'
import type { RawData, WebSocket } from 'ws'
import { safeParse, type $ZodType, type output } from 'zod/v4/core'
import type { Guest, GuestTarget, RunningCommand } from '../../guest/guest.ts'
import type { Clock } from '../../model/clock.ts'
import { fail, type ErrorBody } from '../../model/errors.ts'
import { zodIssues } from '../errors.ts'
import { execControl, execStart, type ExecControl, type ExecStart } from '../schemas/inside.ts'
import { commandOf } from './exec.ts'

const STDIN = 0x00
const STDOUT = 0x01
const STDERR = 0x02
/** Bytes of standard input that wait for a slow command before the client is no longer read. */
const STDIN_QUEUE_MAX = 2 ** 20
/** How long a client may take to say what to run, milliseconds. */
const START_LIMIT_MS = 15_000
/** A silent client is pinged each time this passes, milliseconds, and given up when it misses two. */
const PING_EVERY_MS = 30_000

export interface ExecSocketDeps {
  readonly guest: Guest
  readonly clock: Clock
  readonly log: FastifyBaseLogger
  readonly closing: AbortSignal
  /** An error in the words of the API. */
  readonly describe: (error: unknown) => ErrorBody
}

interface Attach extends ExecSocketDeps {
  /** What the client sent behind its start message. */
  readonly rest: readonly [RawData, boolean][]
}

const bytesOf = (data: RawData): Buffer =>
  Array.isArray(data) ? Buffer.concat(data) : Buffer.isBuffer(data) ? data : Buffer.from(data)

function parseMessage<S extends $ZodType>(schema: S, text: string): output<S> {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    // Whatever it is, it is not what the protocol asks for.
    throw fail('INVALID_REQUEST', { issues: [{ path: '', message: 'the message is not JSON' }] })
  }
  const result = safeParse(schema, json)
  if (!result.success) throw fail('INVALID_REQUEST', { issues: zodIssues(result.error) })
  return result.data
}

/** Sends one frame; resolves when it has left, which is the back-pressure. */
function send(socket: WebSocket, data: string | Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.send(data, (error) => (error == null ? resolve() : reject(error)))
  })
}

async function pump(socket: WebSocket, stream: Readable, kind: number): Promise<void> {
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    await send(socket, Buffer.concat([Buffer.of(kind), chunk]))
  }
}

type Consumer = (data: RawData, isBinary: boolean) => void

/**
 * Holds messages until somebody takes them. It listens from the very first moment: several messages can come in one
 * packet, and `pause` does not hold back what was received already.
 */
function openInbox(socket: WebSocket): { take(consumer: Consumer): void } {
  const backlog: [RawData, boolean][] = []
  let consumer: Consumer | null = null
  socket.on('message', (data, isBinary) => {
    if (consumer === null) {
      backlog.push([data, isBinary])
      socket.pause()
    } else consumer(data, isBinary)
  })
  return {
    take(next) {
      consumer = next
      for (const [data, isBinary] of backlog.splice(0)) next(data, isBinary)
      if (socket.isPaused) socket.resume()
    },
  }
}

/** The first text message; rejects when the client leaves, errs or takes too long. What follows it is kept in `rest`. */
function firstMessage(
  socket: WebSocket,
  inbox: { take(consumer: Consumer): void },
  clock: Clock,
): Promise<{ start: ExecStart; rest: [RawData, boolean][] }> {
  return new Promise((resolve, reject) => {
    const rest: [RawData, boolean][] = []
    let first = true
    const done = (fn: () => void): void => {
      cancel()
      socket.off('close', onClose)
      fn()
    }
    const onClose = (): void => done(() => reject(new Error('the client went away')))
    const cancel = clock.after(START_LIMIT_MS, () =>
      done(() => reject(fail('TIMEOUT', { what: 'the start message', afterMs: START_LIMIT_MS }))),
    )
    socket.once('close', onClose)
    inbox.take((data, isBinary) => {
      // The client is not read further until the command runs.
      socket.pause()
      if (!first) {
        rest.push([data, isBinary])
        return
      }
      first = false
      done(() => {
        try {
          resolve({ start: parseMessage(execStart, isBinary ? '' : bytesOf(data).toString('utf8')), rest })
        } catch (error) {
          reject(error as Error)
        }
      })
    })
  })
}

/** Feeds standard input in order, and obeys controls at once: a signal must not wait behind unread input. */
function feed(socket: WebSocket, run: RunningCommand, log: FastifyBaseLogger): Consumer {
  let queued = 0
  let tail: Promise<void> = Promise.resolve()
  const failed = (error: unknown): void => log.debug({ err: error }, 'a command no longer takes input')
  const stdin = (bytes: Buffer): void => {
    queued += bytes.length
    if (queued > STDIN_QUEUE_MAX) socket.pause()
    tail = tail
      .then(() => run.write(bytes))
      .catch(failed)
      .finally(() => {
        queued -= bytes.length
        if (socket.isPaused && queued <= STDIN_QUEUE_MAX / 2) socket.resume()
      })
  }
  const control = (message: ExecControl): void => {
    switch (message.type) {
      case 'eof':
        tail = tail.then(() => run.end()).catch(failed)
        return
      case 'resize':
        run.resize(message.columns, message.rows).catch(failed)
        return
      case 'signal':
        run.kill(message.signal).catch(failed)
    }
  }
  return (data, isBinary) => {
    const bytes = bytesOf(data)
    if (!isBinary) control(parseMessage(execControl, bytes.toString('utf8')))
    else if (bytes[0] === STDIN) stdin(bytes.subarray(1))
    else throw fail('INVALID_REQUEST', { issues: [{ path: '', message: 'a binary frame begins with 0x00' }] })
  }
}

/** Ends the connection of a client that vanished without a word. */
function keepAlive(socket: WebSocket, clock: Clock): () => void {
  let missed = 0
  let cancel = (): void => undefined
  const heard = (): void => {
    missed = 0
  }
  socket.on('pong', heard)
  socket.on('message', heard)
  const tick = (): void => {
    // While we hold the reading back ourselves, silence says nothing about the client.
    if (!socket.isPaused) {
      if (missed >= 2) {
        socket.terminate()
        return
      }
      missed += 1
      if (socket.readyState === socket.OPEN) socket.ping()
    }
    cancel = clock.after(PING_EVERY_MS, tick)
  }
  cancel = clock.after(PING_EVERY_MS, tick)
  return () => cancel()
}

async function finish(socket: WebSocket, message: object): Promise<void> {
  if (socket.readyState !== socket.OPEN) return
  await send(socket, JSON.stringify(message)).catch(() => {
    // The client is gone, and the command's end has been dealt with: there is nobody left to tell.
  })
  socket.close(1000)
  // The closing handshake is a message too: it must be read, whatever was held back before.
  socket.removeAllListeners('message')
  socket.resume()
}

/** Ties one running command to one socket, until both outputs and the command have ended. */
async function attach(
  socket: WebSocket,
  inbox: { take(consumer: Consumer): void },
  run: RunningCommand,
  deps: Attach,
): Promise<void> {
  let over = false
  const cancel = (): void => {
    if (over) return
    over = true
    run.cancel().catch((error: unknown) => deps.log.warn({ err: error }, 'a command could not be cancelled'))
    // Nobody reads the outputs any more; unread, they would block the command's end.
    run.stdout.resume()
    run.stderr.resume()
  }
  const giveUp = (error: ErrorBody): void => {
    cancel()
    void finish(socket, { type: 'error', error })
  }
  const onClosing = (): void =>
    giveUp(fail('SERVICE_UNAVAILABLE', { detail: 'the server is stopping' }).toBody())
  const input = feed(socket, run, deps.log)
  const consume: Consumer = (data, isBinary) => {
    try {
      input(data, isBinary)
    } catch (error) {
      giveUp(deps.describe(error))
    }
  }
  socket.once('close', cancel)
  deps.closing.addEventListener('abort', onClosing, { once: true })
  try {
    if (socket.readyState === socket.OPEN) {
      await send(socket, '{"type":"started"}')
      for (const [data, isBinary] of deps.rest) consume(data, isBinary)
      inbox.take(consume)
    } else cancel()
    await Promise.all([pump(socket, run.stdout, STDOUT), pump(socket, run.stderr, STDERR)]).catch(
      (error: unknown) => {
        // Either the client has gone or the connection into the sandbox has; the exit tells which.
        deps.log.debug({ err: error }, 'an output ended early')
        if (socket.readyState !== socket.OPEN) cancel()
      },
    )
    const exit = await run.exit
    over = true
    await finish(socket, { type: 'exit', exitCode: exit.code, timedOut: exit.timedOut, lost: exit.lost })
  } finally {
    deps.closing.removeEventListener('abort', onClosing)
  }
}

/**
 * One command over one WebSocket. The client's going ends the command's whole group. Must be called in the turn in
 * which the socket was opened, so that no message is missed.
 */
export async function execOverSocket(
  socket: WebSocket,
  resolveTarget: () => Promise<GuestTarget>,
  deps: ExecSocketDeps,
): Promise<void> {
  const inbox = openInbox(socket)
  const stopPings = keepAlive(socket, deps.clock)
  socket.on('error', (error) => deps.log.debug({ err: error }, 'exec socket failed'))
  try {
    const target = await resolveTarget()
    const { start, rest } = await firstMessage(socket, inbox, deps.clock)
    const { type: _type, stdin, tty, ...body } = start
    const request = { ...commandOf(body, stdin ? 'stream' : 'none'), ...(tty === undefined ? {} : { tty }) }
    await attach(socket, inbox, await deps.guest.run(target, request), { ...deps, rest })
  } catch (error) {
    await finish(socket, { type: 'error', error: deps.describe(error) })
  } finally {
    stopPings()
  }
}
