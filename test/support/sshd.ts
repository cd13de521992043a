import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

export interface Sshd {
  /** `root@127.0.0.1:port` */
  readonly address: string
  /** A client configuration that knows the host key and has the user's key. */
  readonly configFile: string
  /** The same without the host key. */
  readonly strangerConfigFile: string
  close(): Promise<void>
}

const START_LIMIT_MS = 10_000

/** A real sshd on loopback with a host key of its own. `config` are further lines of its configuration. */
export async function startSshd(config: readonly string[] = []): Promise<Sshd> {
  const dir = await mkdtemp(join(tmpdir(), 'hf-sshd-'))
  const port = await freePort()
  const file = (name: string, text: string): string => {
    writeFileSync(join(dir, name), text, { mode: 0o600 })
    return join(dir, name)
  }
  for (const name of ['host', 'user'])
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'test', '-f', join(dir, name)])
  const authorized = file('authorized', readFileSync(join(dir, 'user.pub'), 'utf8'))
  const known = file('known', `[127.0.0.1]:${port} ${readFileSync(join(dir, 'host.pub'), 'utf8')}`)
  const server = file(
    'sshd_config',
    [
      'ListenAddress 127.0.0.1',
      `HostKey ${join(dir, 'host')}`,
      `AuthorizedKeysFile ${authorized}`,
      'PidFile none',
      'UsePAM no',
      'PasswordAuthentication no',
      'PermitRootLogin prohibit-password',
      'StrictModes no',
      `SetEnv PATH=${process.env['PATH'] ?? '/usr/bin:/bin'}`,
      ...config,
      '',
    ].join('\n'),
  )
  const client = (knownHosts: string): string =>
    `Host *\n  IdentityFile ${join(dir, 'user')}\n  IdentitiesOnly yes\n  GlobalKnownHostsFile /dev/null\n  UserKnownHostsFile ${knownHosts}\n`
  // sshd's own requirement; it is part of the package on an installed system.
  mkdirSync('/run/sshd', { recursive: true, mode: 0o755 })
  const child = spawn('/usr/sbin/sshd', ['-D', '-e', '-f', server, '-p', String(port)], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const sshd: Sshd = {
    address: `root@127.0.0.1:${port}`,
    configFile: file('client', client(known)),
    strangerConfigFile: file('stranger', client(file('nobody', ''))),
    async close() {
      if (child.exitCode === null && child.signalCode === null) {
        const ended = new Promise((resolve) => child.once('exit', resolve))
        child.kill('SIGTERM')
        await ended
      }
      await rm(dir, { recursive: true, force: true })
    },
  }
  const end = performance.now() + START_LIMIT_MS
  while (!(await listens(port))) {
    if (child.exitCode !== null || performance.now() > end) {
      await sshd.close()
      throw new Error(`sshd did not start: ${said}`)
    }
    await delay(50)
  }
  return sshd
}

/** A port that nothing has at this moment. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    const end = (ok: boolean): void => {
      socket.destroy()
      resolve(ok)
    }
    socket.once('connect', () => end(true))
    socket.once('error', () => end(false))
  })
}
