import { posix } from 'node:path'
import { UsageError } from '../parse.ts'

export type Place =
  | { readonly kind: 'sandbox'; readonly ref: string; readonly path: string }
  | { readonly kind: 'local'; readonly path: string }
  /** A tar stream on stdin or stdout. */
  | { readonly kind: 'stream' }

/** `sandbox:/path`, `-`, or a local path. As with `docker cp`, a path with a slash or dot before the colon is local. */
export function parsePlace(text: string): Place {
  if (text === '-') return { kind: 'stream' }
  const [, ref, path] = /^([A-Za-z0-9][A-Za-z0-9_.-]*):(.*)$/s.exec(text) ?? []
  if (ref === undefined || path === undefined) {
    if (text === '') throw new UsageError('An empty path was given')
    return { kind: 'local', path: text }
  }
  if (path === '') throw new UsageError(`${text} names no path`, `Write it as ${ref}:/path.`)
  return { kind: 'sandbox', ref, path: absolute(path) }
}

/** Paths in a sandbox start at its root. A trailing `/` or `/.` is kept: it means "what is in it", or "must be a directory". */
function absolute(path: string): string {
  const normal = posix.normalize(`/${path}`)
  return path.endsWith('/.') && normal !== '/' ? `${normal.replace(/\/$/, '')}/.` : normal
}

export const meansContents = (path: string): boolean => path === '.' || path.endsWith('/.')
export const meansDirectory = (path: string): boolean => path.endsWith('/') || meansContents(path)

/** Without the trailing `/` or `/.`. */
export function bare(path: string): string {
  return path.replace(/(\/\.?)+$/, '') || (path.startsWith('/') ? '/' : '.')
}

/** An entry of an archive that would leave the place it is unpacked to. */
export class UnsafeEntry extends Error {
  constructor(name: string, why: string) {
    super(`The archive holds "${name}", ${why}. It was not written, and nothing after it.`)
    this.name = 'UnsafeEntry'
  }
}

/** The parts of an entry's name below the archive's root; refuses what is absolute or climbs. */
export function entryParts(name: string): string[] {
  if (name.includes('\0')) throw new UnsafeEntry(name.replaceAll('\0', '\\0'), 'whose name is not valid')
  if (name.startsWith('/')) throw new UnsafeEntry(name, 'which is an absolute path')
  const parts = name.split('/').filter((part) => part !== '' && part !== '.')
  if (parts.includes('..')) throw new UnsafeEntry(name, 'which climbs out with ..')
  return parts
}

/** The number of leading parts that make the root of an archive, from the name of its first entry. */
export const rootDepth = (firstName: string): number => entryParts(firstName.replace(/^\/+/, '')).length
