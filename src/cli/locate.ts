import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { UsageError } from './parse.ts'

export interface Surroundings {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly uid: number
  readonly home: string
  /** The text of a file, or null when it is not there or not ours to read. */
  readonly read: (path: string) => string | null
}

export interface Connection {
  readonly url: string
  readonly apiKey: string | undefined
  readonly stateDir: string
  /** Which of the places the address came from, for `doctor`. */
  readonly urlFrom: 'flag' | 'HOLDFAST_SERVER' | 'HOLDFAST_LISTEN' | 'state directory' | 'default'
  readonly keyFrom: 'flag' | 'HOLDFAST_API_KEY' | 'state directory' | 'nowhere'
}

export interface ServerFile {
  readonly url: string
  readonly proxyUrl: string | null
  readonly pid: number | null
}

const DEFAULT_URL = 'http://127.0.0.1:8080'

export function surroundings(env: Readonly<Record<string, string | undefined>>): Surroundings {
  return {
    env,
    uid: process.getuid?.() ?? -1,
    home: homedir(),
    read: (path) => {
      try {
        return readFileSync(path, 'utf8')
      } catch {
        // Not there, or another user's: either way there is nothing to take from it.
        return null
      }
    },
  }
}

/** The same default that the server has. */
export function stateDirOf({ env, uid, home }: Omit<Surroundings, 'read'>): string {
  if (env['HOLDFAST_STATE_DIR']) return env['HOLDFAST_STATE_DIR']
  if (uid === 0) return '/var/lib/holdfast'
  return join(env['XDG_STATE_HOME'] || join(home, '.local', 'state'), 'holdfast')
}

/** The address to call for a listen address; `0.0.0.0` and `::` are every address, of which loopback is one. */
export function urlOfListen(listen: string): string | null {
  const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(listen) ?? []
  if (port === '' || Number(port) === 0) return null
  const bare = host.replace(/^\[(.*)\]$/, '$1')
  if (bare === '' || bare === '0.0.0.0') return `http://127.0.0.1:${port}`
  if (bare === '::') return `http://[::1]:${port}`
  return bare.includes(':') ? `http://[${bare}]:${port}` : `http://${bare}:${port}`
}

export function readServerFile(stateDir: string, read: Surroundings['read']): ServerFile | null {
  const text = read(join(stateDir, 'server.json'))
  if (text === null) return null
  try {
    const { url, proxyUrl, pid } = JSON.parse(text) as Record<string, unknown>
    if (typeof url !== 'string') return null
    return {
      url,
      proxyUrl: typeof proxyUrl === 'string' ? proxyUrl : null,
      pid: typeof pid === 'number' ? pid : null,
    }
  } catch {
    // Written while we read: the other places still tell where the server is.
    return null
  }
}

function checkedUrl(text: string, from: string): string {
  const url = URL.parse(text.includes('://') ? text : `http://${text}`)
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new UsageError(`${from}: "${text}" is not an address`, 'Write it as http://127.0.0.1:8080.')
  }
  return url.origin + url.pathname.replace(/\/+$/, '')
}

/** Flags, then the environment, then the files that the server leaves in its state directory. */
export function locate(flags: { server?: string; apiKey?: string }, around: Surroundings): Connection {
  const { env, read } = around
  const stateDir = stateDirOf(around)
  const file = readServerFile(stateDir, read)
  const listen = env['HOLDFAST_LISTEN'] ? urlOfListen(env['HOLDFAST_LISTEN']) : null
  const found = ((): Pick<Connection, 'url' | 'urlFrom'> => {
    if (flags.server !== undefined) return { url: checkedUrl(flags.server, '--server'), urlFrom: 'flag' }
    if (env['HOLDFAST_SERVER'])
      return { url: checkedUrl(env['HOLDFAST_SERVER'], 'HOLDFAST_SERVER'), urlFrom: 'HOLDFAST_SERVER' }
    // The file knows the scheme too, when it is about the same address.
    if (listen !== null && file !== null && URL.parse(file.url)?.host === new URL(listen).host) {
      return { url: file.url, urlFrom: 'state directory' }
    }
    if (listen !== null) return { url: listen, urlFrom: 'HOLDFAST_LISTEN' }
    if (file !== null) return { url: checkedUrl(file.url, 'server.json'), urlFrom: 'state directory' }
    return { url: DEFAULT_URL, urlFrom: 'default' }
  })()
  return { ...found, ...keyFor(flags, around, stateDir, found, file), stateDir }
}

/**
 * The key in the state directory opens the server of that directory: it is not sent to an address that somebody
 * named otherwise, unless it is that server's.
 */
function keyFor(
  flags: { apiKey?: string },
  { env, read }: Surroundings,
  stateDir: string,
  found: Pick<Connection, 'url' | 'urlFrom'>,
  file: ServerFile | null,
): Pick<Connection, 'apiKey' | 'keyFrom'> {
  if (flags.apiKey !== undefined) return { apiKey: flags.apiKey, keyFrom: 'flag' }
  if (env['HOLDFAST_API_KEY']) return { apiKey: env['HOLDFAST_API_KEY'], keyFrom: 'HOLDFAST_API_KEY' }
  const elsewhere = found.urlFrom === 'flag' || found.urlFrom === 'HOLDFAST_SERVER'
  if (elsewhere && (file === null || new URL(file.url).origin !== new URL(found.url).origin)) {
    return { apiKey: undefined, keyFrom: 'nowhere' }
  }
  const key = read(join(stateDir, 'cli.key'))?.trim()
  return key ? { apiKey: key, keyFrom: 'state directory' } : { apiKey: undefined, keyFrom: 'nowhere' }
}
