import { EngineError } from '../../model/facts.ts'

/** Where an engine's HTTP API is reached. */
export type Endpoint =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | {
      readonly kind: 'ssh'
      readonly host: string
      readonly user: string | null
      readonly port: number | null
      /** The engine's socket on the remote machine. */
      readonly remoteSocket: string
    }

export const DEFAULT_DOCKER_ENDPOINT = 'unix:///var/run/docker.sock'
const DEFAULT_REMOTE_SOCKET = '/var/run/docker.sock'
/** Docker's registered ports: 2376 with TLS, 2375 without. */
const DEFAULT_TLS_PORT = 2376
const DEFAULT_PLAIN_PORT = 2375

const wrong = (text: string, why: string): EngineError =>
  new EngineError('invalid', 'none', `The engine address "${text}" is not valid: ${why}`)

/**
 * Reads `unix:///path`, `tcp://host[:port]` or `ssh://[user@]host[:port][/remote/socket]`.
 * Throws `EngineError` of kind `invalid` for anything else.
 */
export function parseEndpoint(text: string, tls: boolean): Endpoint {
  if (text.startsWith('unix://')) {
    const path = text.slice('unix://'.length)
    if (!path.startsWith('/')) throw wrong(text, 'the path of the socket must be absolute')
    return { kind: 'unix', path }
  }
  const url = URL.canParse(text) ? new URL(text) : null
  if (url === null || url.hostname === '')
    throw wrong(text, 'use unix:///path, tcp://host:port or ssh://user@host')
  if (url.search !== '' || url.hash !== '' || url.password !== '')
    throw wrong(text, 'it may hold no query, fragment or password')
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const port = url.port === '' ? null : Number(url.port)
  if (url.protocol === 'tcp:') {
    if (url.username !== '' || (url.pathname !== '' && url.pathname !== '/'))
      throw wrong(text, 'a tcp address is only a host and a port')
    return { kind: 'tcp', host, port: port ?? (tls ? DEFAULT_TLS_PORT : DEFAULT_PLAIN_PORT) }
  }
  if (url.protocol !== 'ssh:') throw wrong(text, 'use unix:///path, tcp://host:port or ssh://user@host')
  const user = url.username === '' ? null : decodeURIComponent(url.username)
  // The program `ssh` would take a leading dash for an option.
  if (host.startsWith('-') || user?.startsWith('-') === true)
    throw wrong(text, 'host and user may not start with a dash')
  const path = decodeURIComponent(url.pathname)
  return {
    kind: 'ssh',
    host,
    user,
    port,
    remoteSocket: path === '' || path === '/' ? DEFAULT_REMOTE_SOCKET : path,
  }
}

/** True for an address that only this machine can reach. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host)
}
