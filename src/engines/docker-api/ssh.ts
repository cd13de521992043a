import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, watch } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Clock } from '../../model/clock.ts'
import { EngineError } from '../../model/facts.ts'
import type { Endpoint } from './endpoint.ts'

export interface SshRoute {
  readonly endpoint: Endpoint & { readonly kind: 'ssh' }
  readonly options: SshOptions
  readonly clock: Clock
}

export interface SshOptions {
  /** The OpenSSH client; `ssh` from PATH when absent. */
  readonly program?: string | undefined
  /** A configuration file instead of the user's own. */
  readonly configFile?: string | undefined
}

/**
 * The engine of another machine as a unix socket of this one, through the OpenSSH program: its configuration,
 * known_hosts, agent and jump hosts hold. One master connection carries everything. The engine's socket is forwarded;
 * where the server forbids that, each connection runs `docker system dial-stdio` there instead.
 */
export interface SshTunnel {
  /** A socket on this machine that leads to the engine; opens the tunnel when it is not open. Rejects with `EngineError`. */
  socketPath(): Promise<string>
  /** What ssh said last about a connection that did not work. */
  note(): string | null
  close(): Promise<void>
}

/** How long the master may take to log in and set up the forwarding, milliseconds. */
const OPEN_LIMIT_MS = 20_000
/** How long a first answer of the engine may take through a fresh tunnel, milliseconds. */
const PROBE_LIMIT_MS = 10_000
/** How long ssh may take to end, milliseconds; its guard ends it at once, so this is only for a machine that stalls. */
const END_LIMIT_MS = 5_000
/** Kept of what ssh prints, characters: enough for its reasons, bounded whatever it prints. */
const STDERR_MAX = 4_000

/** Ends ssh when its own standard input ends, which is when we end, however we end; then removes the directory. */
const GUARD = `
dir=$1; shift
exec 3<&0
"$@" </dev/null 3<&- &
ssh=$!
{ read -r _ <&3; kill "$ssh"; } 2>/dev/null &
guard=$!
exec 3<&-
wait "$ssh"; status=$?
kill "$guard" 2>/dev/null
rm -rf -- "$dir"
exit "$status"`

interface Master {
  readonly dir: string
  readonly control: string
  readonly forwarded: string
  readonly child: ChildProcess
  readonly ended: Promise<void>
  alive: boolean
  errors: string
  server: Server | null
}

export function createSshTunnel(route: SshRoute): SshTunnel {
  let opened: { readonly path: string; readonly master: Master } | null = null
  let opening: Promise<string> | null = null
  let closed = false
  let lastNote: string | null = null
  const note = (text: string): void => {
    if (text.trim() !== '') lastNote = text.trim()
  }

  const open = async (): Promise<string> => {
    const master = await openMaster(route)
    try {
      const path = await usablePath(route, master, note)
      if (closed) throw closedError()
      opened = { path, master }
      // The guard removes the directory, unless it was killed together with ssh.
      void master.ended.then(() => {
        note(master.errors)
        return rm(master.dir, { recursive: true, force: true })
      })
      return path
    } catch (error) {
      await endMaster(route.clock, master)
      throw error
    }
  }

  return {
    async socketPath() {
      if (closed) throw closedError()
      if (opened?.master.alive === true) return opened.path
      opening ??= open().finally(() => (opening = null))
      return opening
    },
    note: () => lastNote,
    async close() {
      closed = true
      await opening?.catch(ignoreOnClose)
      if (opened !== null) await endMaster(route.clock, opened.master)
    },
  }
}

const closedError = (): EngineError => new EngineError('unreachable', 'none', 'The connection was closed')

/** The caller that waited for the tunnel was told; closing needs only that it is over. */
function ignoreOnClose(): void {}

/** What every ssh that we start has in common. Host keys must be known: nothing is ever accepted unseen. */
function commonArguments({ endpoint, options }: SshRoute): string[] {
  const set = [
    'BatchMode=yes',
    'StrictHostKeyChecking=yes',
    'ControlPersist=no',
    'ForkAfterAuthentication=no',
    'RequestTTY=no',
    'RemoteCommand=none',
    'PermitLocalCommand=no',
    'ForwardAgent=no',
    'ForwardX11=no',
    'ConnectTimeout=15',
    'ServerAliveInterval=10',
    'ServerAliveCountMax=3',
  ]
  return [
    ...(options.configFile === undefined ? [] : ['-F', options.configFile]),
    ...set.flatMap((option) => ['-o', option]),
    ...(endpoint.port === null ? [] : ['-p', String(endpoint.port)]),
    ...(endpoint.user === null ? [] : ['-l', endpoint.user]),
  ]
}

async function openMaster(route: SshRoute): Promise<Master> {
  const { endpoint, options } = route
  // mkdtemp makes it 0700: whoever reaches the sockets in it controls the engine.
  const dir = await mkdtemp(join(tmpdir(), 'hf-ssh-'))
  const control = join(dir, 'c')
  const forwarded = join(dir, 'engine.sock')
  const program = options.program ?? 'ssh'
  const master = [
    '-M',
    '-S',
    control,
    '-N',
    '-T',
    '-o',
    'ExitOnForwardFailure=yes',
    '-o',
    'StreamLocalBindMask=0177',
  ]
  const forward = ['-L', `${forwarded}:${endpoint.remoteSocket}`]
  const args = [...commonArguments(route), ...master, ...forward, '--', endpoint.host]
  const child = spawn('/bin/sh', ['-c', GUARD, 'sh', dir, program, ...args], {
    stdio: ['pipe', 'ignore', 'pipe'],
  })
  const opened: Master = {
    dir,
    control,
    forwarded,
    child,
    ended: new Promise((resolve) => {
      child.once('error', () => resolve())
      child.once('exit', () => resolve())
    }),
    alive: true,
    errors: '',
    server: null,
  }
  child.stdin?.on('error', ignoreOnClose)
  child.stderr?.on(
    'data',
    (chunk: Buffer) => (opened.errors = (opened.errors + chunk.toString()).slice(-STDERR_MAX)),
  )
  void opened.ended.then(() => {
    opened.alive = false
    opened.server?.close()
  })
  try {
    await appears(route.clock, opened)
    return opened
  } catch (error) {
    await endMaster(route.clock, opened)
    throw error
  }
}

/** ssh makes the forwarded socket once it is logged in, so that its presence is what tells of success. */
function appears(clock: Clock, master: Master): Promise<void> {
  return new Promise((resolve, reject) => {
    const watcher = watch(master.dir, () => look())
    const limitOff = clock.after(OPEN_LIMIT_MS, () =>
      end(sshError(`no connection after ${OPEN_LIMIT_MS} ms`)),
    )
    const end = (error?: EngineError): void => {
      limitOff()
      watcher.close()
      if (error === undefined) resolve()
      else reject(error)
    }
    const look = (): void => {
      if (existsSync(master.forwarded)) end()
    }
    watcher.on('error', (error) => end(sshError(error.message)))
    void master.ended.then(() => end(sshError(master.errors)))
    look()
  })
}

const REFUSED =
  /permission denied|host key verification failed|identification has changed|no .* host key is known/i

function sshError(text: string): EngineError {
  const said = text.trim() === '' ? 'it ended without a word' : text.trim()
  return new EngineError(REFUSED.test(said) ? 'denied' : 'unreachable', 'none', `ssh: ${said}`)
}

async function endMaster(clock: Clock, master: Master): Promise<void> {
  master.server?.close()
  master.child.stdin?.end()
  const limitOff = clock.after(END_LIMIT_MS, () => master.child.kill('SIGKILL'))
  await master.ended
  limitOff()
  await rm(master.dir, { recursive: true, force: true })
}

async function usablePath(route: SshRoute, master: Master, note: (text: string) => void): Promise<string> {
  const { clock, endpoint } = route
  if (await answers(clock, master.forwarded)) return master.forwarded
  const path = join(master.dir, 'stdio.sock')
  const said: string[] = []
  master.server = await listen(path, (socket) =>
    dialStdio(route, socket, master, (text) => {
      said.push(text.trim())
      note(text)
    }),
  )
  if (await answers(clock, path)) return path
  throw new EngineError(
    'unreachable',
    'none',
    `ssh: ${endpoint.host} was reached, and its engine does not answer: ${[master.errors.trim(), ...said].filter((t) => t !== '').join('; ') || 'no reason was given'}`,
  )
}

function listen(path: string, onConnection: (socket: Socket) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, onConnection)
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, () => resolve(server))
  })
}

/** One connection as one `docker system dial-stdio` on the other side, over the master's connection. */
function dialStdio(route: SshRoute, socket: Socket, master: Master, note: (text: string) => void): void {
  const { endpoint, options } = route
  const args = [...commonArguments(route), '-S', master.control, '-T', '--', endpoint.host]
  const child = spawn(options.program ?? 'ssh', [...args, 'docker', 'system', 'dial-stdio'], {
    stdio: 'pipe',
  })
  let errors = ''
  child.stderr.on('data', (chunk: Buffer) => (errors = (errors + chunk.toString()).slice(-STDERR_MAX)))
  child.once('close', () => {
    note(errors)
    socket.end()
  })
  const drop = (): void => {
    child.stdin.destroy()
    child.kill()
    socket.destroy()
  }
  child.on('error', (error) => {
    note(error.message)
    drop()
  })
  child.stdin.on('error', drop)
  socket.on('error', drop)
  socket.once('close', drop)
  socket.pipe(child.stdin)
  child.stdout.pipe(socket)
}

/** True when an HTTP server answers at the socket. */
function answers(clock: Clock, path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    const end = (ok: boolean): void => {
      limitOff()
      socket.destroy()
      resolve(ok)
    }
    const limitOff = clock.after(PROBE_LIMIT_MS, () => end(false))
    socket.once('connect', () =>
      socket.write('GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n'),
    )
    socket.once('data', (chunk: Buffer) => end(chunk.toString('latin1').startsWith('HTTP/1.')))
    socket.once('error', () => end(false))
    socket.once('close', () => end(false))
  })
}
