import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buildConnector, type Dispatcher, Pool } from 'undici'
import type { Clock } from '../../model/clock.ts'
import { EngineError } from '../../model/facts.ts'
import { type Endpoint, isLoopback, parseEndpoint } from './endpoint.ts'
import { createSshTunnel, type SshOptions, type SshTunnel } from './ssh.ts'

export interface ConnectionOptions {
  /** `unix:///path`, `tcp://host:port` or `ssh://[user@]host[:port]`. */
  readonly endpoint: string
  /** A directory with `ca.pem`, `cert.pem` and `key.pem`, as DOCKER_CERT_PATH names one: TLS, always verified. */
  readonly tlsCertPath?: string | undefined
  /** Allows tcp without TLS to other machines, where everybody on the way can take the engine over. */
  readonly allowPlainTcp?: boolean | undefined
  readonly ssh?: SshOptions | undefined
  readonly clock: Clock
}

export interface Connection {
  /** The endpoint, for people. */
  readonly label: string
  readonly dispatcher: Dispatcher
  /** The engine's socket on this machine; null when the engine is elsewhere. */
  readonly socketPath: string | null
  /** What is known of why the engine cannot be reached, beyond the socket's error. */
  note(): string | null
  close(): Promise<void>
}

/** How long an unused connection is kept, milliseconds: longer than the resync interval, so that it finds one open. */
const KEEP_ALIVE_MS = 60_000
/** A connection that takes longer than this to open will not, milliseconds; the call's own limit can be shorter. */
const CONNECT_LIMIT_MS = 15_000

/**
 * Prepares a connection; nothing is opened before the first call. Throws `EngineError` of kind `invalid` or `denied`
 * for an address that is not valid or not safe.
 */
export function openConnection(options: ConnectionOptions): Connection {
  const endpoint = parseEndpoint(options.endpoint, options.tlsCertPath !== undefined)
  switch (endpoint.kind) {
    case 'unix':
      return pooled(options.endpoint, 'http://engine', unixConnector(endpoint.path), endpoint.path)
    case 'tcp':
      return tcpConnection(endpoint, options)
    case 'ssh': {
      const tunnel = createSshTunnel({ endpoint, options: options.ssh ?? {}, clock: options.clock })
      return pooled(options.endpoint, 'http://engine', sshConnector(tunnel), null, tunnel)
    }
  }
}

function pooled(
  label: string,
  origin: string,
  connect: buildConnector.connector,
  socketPath: string | null,
  tunnel: SshTunnel | null = null,
): Connection {
  // No limit on connections: a follower of a log holds one for hours and must not hold up anything else.
  const pool = new Pool(origin, {
    connect,
    connections: null,
    pipelining: 1,
    allowH2: false,
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: KEEP_ALIVE_MS,
    // Limits are those of each call.
    headersTimeout: 0,
    bodyTimeout: 0,
  })
  return {
    label,
    dispatcher: pool,
    socketPath,
    note: () => tunnel?.note() ?? null,
    async close() {
      await pool.destroy()
      await tunnel?.close()
    },
  }
}

const unixConnector = (path: string): buildConnector.connector =>
  buildConnector({ socketPath: path, timeout: CONNECT_LIMIT_MS, allowH2: false })

const sshConnector = (tunnel: SshTunnel): buildConnector.connector =>
  prepared(async () => unixConnector(await tunnel.socketPath()))

/** A connector that needs something before it can connect. */
function prepared(prepare: () => Promise<buildConnector.connector>): buildConnector.connector {
  const connect = async (
    options: buildConnector.Options,
    callback: buildConnector.Callback,
  ): Promise<void> => {
    let connector: buildConnector.connector
    try {
      connector = await prepare()
    } catch (error) {
      callback(error instanceof Error ? error : new Error(String(error)), null)
      return
    }
    connector(options, callback)
  }
  return (options, callback) => void connect(options, callback)
}

function tcpConnection(endpoint: Endpoint & { kind: 'tcp' }, options: ConnectionOptions): Connection {
  const { host, port } = endpoint
  const name = host.includes(':') ? `[${host}]` : host
  if (options.tlsCertPath !== undefined)
    return pooled(options.endpoint, `https://${name}:${port}`, tlsConnector(options.tlsCertPath), null)
  if (!isLoopback(host) && options.allowPlainTcp !== true)
    throw new EngineError(
      'denied',
      'none',
      `The engine at ${options.endpoint} would be used without TLS, which gives everybody on the way control of it: set a certificate path, use ssh://, or allow it explicitly`,
    )
  return pooled(
    options.endpoint,
    `http://${name}:${port}`,
    buildConnector({ timeout: CONNECT_LIMIT_MS, allowH2: false }),
    null,
  )
}

/** Reads the files at each new connection, so that renewed certificates are taken up without a restart. */
function tlsConnector(dir: string): buildConnector.connector {
  const file = async (name: string): Promise<Buffer> => {
    try {
      return await readFile(join(dir, name))
    } catch (error) {
      throw new EngineError('denied', 'none', `The TLS file ${join(dir, name)} cannot be read`, {
        cause: error,
      })
    }
  }
  return prepared(async () => {
    const [ca, cert, key] = await Promise.all([file('ca.pem'), file('cert.pem'), file('key.pem')])
    const limits = { minVersion: 'TLSv1.2', timeout: CONNECT_LIMIT_MS, allowH2: false } as const
    return buildConnector({ ca, cert, key, rejectUnauthorized: true, ...limits })
  })
}
