import { isIP, type AddressInfo } from 'node:net'
import { fail } from '../model/errors.ts'
import type { Address } from './deps.ts'

/** Reads `host:port`, `[v6]:port` or `:port`; null when it is none of them. */
export function parseAddress(text: string): Address | null {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(text)
  if (match === null) return null
  const port = Number(match[3])
  if (port > 65_535) return null
  return { host: match[1] ?? (match[2] === '' || match[2] === undefined ? '127.0.0.1' : match[2]), port }
}

export function formatAddress(a: Address): string {
  return isIP(a.host) === 6 ? `[${a.host}]:${a.port}` : `${a.host}:${a.port}`
}

/** The name in a `Host` header, lower-case and without brackets and port; null when there is none or it is malformed. */
export function hostName(header: string | undefined): string | null {
  if (header === undefined) return null
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::\d{1,5})?$/.exec(header)
  return match === null ? null : (match[1] ?? match[2] ?? '').toLowerCase().replace(/\.$/, '')
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host)
}

const isWildcard = (host: string): boolean => host === '0.0.0.0' || host === '::' || host === ''

/**
 * The allow-list against DNS rebinding (DESIGN §6). An address literal cannot be rebound, so any is taken when the
 * server listens on all of them; a name must be known.
 */
export function hostAllowed(name: string, listen: Address, allowed: readonly string[]): boolean {
  if (isLoopback(name) || name === listen.host.toLowerCase()) return true
  if (allowed.some((h) => h.toLowerCase() === name)) return true
  return isWildcard(listen.host) && isIP(name) !== 0
}

/** The configured host with the port that the system gave. */
export function bound(asked: Address, got: AddressInfo | string | null): Address {
  return got === null || typeof got === 'string' ? asked : { host: asked.host, port: got.port }
}

/** A failed listen in the words of the table, where it is one that people can mend. */
export function inUse(error: unknown, address: Address): unknown {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
  return code === 'EADDRINUSE' ? fail('ADDRESS_IN_USE', { address: formatAddress(address) }) : error
}
