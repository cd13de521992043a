import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { isAbsolute, join, resolve } from 'node:path'
import { parse as parseYaml } from 'yaml'
import { z } from 'zod'
import { fail, type FieldIssue } from '../model/errors.ts'

/** What flags give; each is stronger than environment and file. */
export interface ServerFlags {
  readonly stateDir?: string | undefined
  readonly listen?: string | undefined
  readonly proxyListen?: string | undefined
  readonly engine?: string | undefined
  readonly isolation?: 'namespaces' | 'none' | undefined
  readonly logLevel?: string | undefined
  readonly configFile?: string | undefined
  readonly tlsCert?: string | undefined
  readonly tlsKey?: string | undefined
  readonly insecureListen?: boolean | undefined
  readonly allowedHostPaths?: readonly string[] | undefined
  readonly apiKey?: string | undefined
}

export interface Address {
  readonly host: string
  readonly port: number
}

export type EngineChoice = 'docker' | 'podman' | 'local' | 'auto'

export interface ServerConfig {
  readonly stateDir: string
  readonly listen: Address
  readonly proxyListen: Address
  readonly engine: EngineChoice
  /** `unix://…`, `tcp://…` or `ssh://…`; null means the driver's default place. */
  readonly dockerHost: string | null
  /** Directory with ca.pem, cert.pem and key.pem for `tcp://`. */
  readonly dockerCertPath: string | null
  readonly isolation: 'namespaces' | 'none' | null
  readonly allowedHostPaths: readonly string[]
  readonly allowedHosts: readonly string[]
  readonly proxyDomain: string
  readonly logLevel: string
  readonly tls: { readonly certFile: string; readonly keyFile: string } | null
  readonly insecureListen: boolean
  readonly apiKey: string | null
}

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const

const FILE = z.strictObject({
  stateDir: z.string().optional(),
  listen: z.string().optional(),
  proxyListen: z.string().optional(),
  engine: z.enum(['docker', 'podman', 'local', 'auto']).optional(),
  dockerHost: z.string().optional(),
  dockerCertPath: z.string().optional(),
  isolation: z.enum(['namespaces', 'none']).optional(),
  allowedHostPaths: z.array(z.string()).optional(),
  allowedHosts: z.array(z.string()).optional(),
  proxyDomain: z.string().optional(),
  log: z.enum(LEVELS).optional(),
  tlsCert: z.string().optional(),
  tlsKey: z.string().optional(),
  insecureListen: z.boolean().optional(),
})

type Env = Readonly<Record<string, string | undefined>>

/** The state directory when nothing names one; the CLI has the same rule. */
export function defaultStateDir(env: Env): string {
  if (process.getuid?.() === 0) return '/var/lib/holdfast'
  const base = env['XDG_STATE_HOME'] ?? join(homedir(), '.local', 'state')
  return join(base, 'holdfast')
}

/** Flags over environment over file; every mistake names its source and field. */
export function loadConfig(flags: ServerFlags, env: Env): ServerConfig {
  const file = readFile(flags.configFile ?? env['HOLDFAST_CONFIG'])
  const listen = address(flags.listen ?? env['HOLDFAST_LISTEN'] ?? file.listen ?? '127.0.0.1:8080', 'listen')
  const proxyText = flags.proxyListen ?? env['HOLDFAST_PROXY_LISTEN'] ?? file.proxyListen
  const proxyListen = proxyText === undefined ? nextPort(listen) : address(proxyText, 'proxyListen')
  const cert = flags.tlsCert ?? file.tlsCert
  const key = flags.tlsKey ?? file.tlsKey
  if ((cert === undefined) !== (key === undefined))
    invalid('flags and file', 'tlsCert', 'tlsCert and tlsKey go together')
  const config: ServerConfig = {
    stateDir: resolve(flags.stateDir ?? env['HOLDFAST_STATE_DIR'] ?? file.stateDir ?? defaultStateDir(env)),
    listen,
    proxyListen,
    engine: oneOf(
      flags.engine ?? env['HOLDFAST_ENGINE'] ?? file.engine ?? 'auto',
      ['docker', 'podman', 'local', 'auto'] as const,
      'engine',
    ),
    dockerHost: env['DOCKER_HOST'] || file.dockerHost || null,
    dockerCertPath: env['DOCKER_CERT_PATH'] || file.dockerCertPath || null,
    isolation: flags.isolation ?? file.isolation ?? null,
    allowedHostPaths: hostPaths(
      flags.allowedHostPaths ?? env['HOLDFAST_ALLOWED_HOST_PATHS']?.split(':') ?? file.allowedHostPaths ?? [],
    ),
    allowedHosts: file.allowedHosts ?? [],
    proxyDomain: file.proxyDomain ?? 'localhost',
    logLevel: oneOf(flags.logLevel ?? env['HOLDFAST_LOG'] ?? file.log ?? 'info', LEVELS, 'log'),
    tls: cert === undefined || key === undefined ? null : { certFile: cert, keyFile: key },
    insecureListen: flags.insecureListen ?? file.insecureListen ?? false,
    apiKey: flags.apiKey ?? (env['HOLDFAST_API_KEY'] || null),
  }
  for (const a of [config.listen, config.proxyListen]) {
    if (!isLoopback(a.host) && config.tls === null && !config.insecureListen)
      throw fail('LISTEN_UNSAFE', { address: `${a.host}:${a.port}` })
  }
  return config
}

function readFile(path: string | undefined): z.infer<typeof FILE> {
  if (path === undefined) return {}
  let value: unknown
  try {
    value = parseYaml(readFileSync(path, 'utf8')) ?? {}
  } catch (error) {
    return invalid(path, '', error instanceof Error ? error.message : String(error))
  }
  const parsed = FILE.safeParse(value)
  if (parsed.success) return parsed.data
  const issues: FieldIssue[] = parsed.error.issues.map((i) => ({
    path: i.path.join('.'),
    message: i.message,
  }))
  throw fail('CONFIG_INVALID', { source: path, issues })
}

function invalid(source: string, path: string, message: string): never {
  throw fail('CONFIG_INVALID', { source, issues: [{ path, message }] })
}

function oneOf<T extends string>(value: string, allowed: readonly T[], field: string): T {
  const found = allowed.find((a) => a === value)
  return (
    found ?? invalid('flags, environment or file', field, `"${value}" is not one of ${allowed.join(', ')}`)
  )
}

/** `host:port`, `[v6]:port` or `:port`. */
export function address(text: string, field: string): Address {
  const m = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(text)
  const port = Number(m?.[3])
  if (m === null || port > 65_535)
    return invalid('flags, environment or file', field, `"${text}" is not host:port`)
  return { host: m[1] ?? (m[2] === '' ? '127.0.0.1' : (m[2] ?? '127.0.0.1')), port }
}

function nextPort(a: Address): Address {
  if (a.port === 65_535)
    invalid('flags, environment or file', 'proxyListen', 'there is no port after 65535: name one')
  return { host: a.host, port: a.port === 0 ? 0 : a.port + 1 }
}

function hostPaths(list: readonly string[]): readonly string[] {
  const paths = list.filter((p) => p !== '')
  for (const p of paths)
    if (!isAbsolute(p)) invalid('flags, environment or file', 'allowedHostPaths', `"${p}" is not absolute`)
  return paths
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host)
}
