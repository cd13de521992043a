import { posix } from 'node:path'

/** Where the default workspace goes. */
export const WORKSPACE_PATH = '/sandbox'

/** What a mount over would break in every image. */
const KERNEL_PATHS: readonly string[] = ['/proc', '/sys', '/dev']

/** True when `path` is `prefix` or beneath it; both normalised. */
export function isUnder(path: string, prefix: string): boolean {
  return path === prefix || path.startsWith(prefix === '/' ? '/' : `${prefix}/`)
}

/** The path as it will be used, or why it cannot be. */
export function mountPath(text: string): { path: string } | { problem: string } {
  if (!text.startsWith('/') || text.includes('\0')) return { problem: 'must be an absolute path' }
  if (text.split('/').includes('..')) return { problem: 'must not contain ".."' }
  const path = normalise(text)
  if (path === '/') return { problem: 'must not be the root directory' }
  if (KERNEL_PATHS.includes(path) || isUnder(path, '/proc') || isUnder(path, '/sys')) {
    return { problem: `${path} belongs to the kernel` }
  }
  // A colon or comma would be read as a separator by engines that take mounts as text.
  if (/[:,\n]/.test(path)) return { problem: 'must not contain ":", "," or a line break' }
  return { path }
}

export function normalise(path: string): string {
  const out = posix.normalize(path)
  return out.length > 1 && out.endsWith('/') ? out.slice(0, -1) : out
}

/**
 * The textual half of the host path rule: the driver resolves the path without following symlinks, on the engine's
 * own host, before every start.
 */
export function hostPathAllowed(path: string, prefixes: readonly string[]): boolean {
  if (!path.startsWith('/') || path.includes('\0') || path.split('/').includes('..')) return false
  const wanted = normalise(path)
  return prefixes.some((prefix) => prefix.startsWith('/') && isUnder(wanted, normalise(prefix)))
}
