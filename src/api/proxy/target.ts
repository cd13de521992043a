import type { IncomingMessage } from 'node:http'
import { bearer, KEY_HEADER } from '../guard.ts'
import type { Context } from '../context.ts'
import { fail } from '../../model/errors.ts'
import { hostName } from '../address.ts'

/** Name of the cookie that a link becomes. */
export const COOKIE = 'holdfast-link'
/** Name of the query field that a link carries. */
export const TOKEN_FIELD = 'holdfast-token'

/** What a request to the proxy asks for, before it is known whether it may. */
export interface Asked {
  /** `host`: the sandbox's own origin. `path`: the upstream protocol's form, shared by all, with the key header only. */
  readonly form: 'host' | 'path'
  readonly sandbox: string
  readonly port: number
  /** The path and query as the sandbox sees them, exactly as they were sent. */
  readonly path: string
}

const PATH_FORM = /^(?:\/v1)?\/sandboxes\/([a-z0-9]{1,63})\/proxy\/(\d{1,5})(\/[^?#]*)?(\?[^#]*)?$/

function portOf(text: string): number | null {
  const port = Number(text)
  return port >= 1 && port <= 65_535 ? port : null
}

/** Reads host and path; null when it is neither form. Pure. */
export function readTarget(host: string | undefined, url: string, domain: string): Asked | null {
  const name = hostName(host)
  const suffix = `.${domain.toLowerCase()}`
  if (name !== null && name.endsWith(suffix)) {
    const match = /^([a-z0-9]{1,57})-(\d{1,5})$/.exec(name.slice(0, -suffix.length))
    const port = match === null ? null : portOf(match[2] ?? '')
    if (match === null || port === null || !url.startsWith('/')) return null
    return { form: 'host', sandbox: match[1] ?? '', port, path: url }
  }
  const match = PATH_FORM.exec(url)
  const port = match === null ? null : portOf(match[2] ?? '')
  if (match === null || port === null) return null
  return { form: 'path', sandbox: match[1] ?? '', port, path: `${match[3] ?? '/'}${match[4] ?? ''}` }
}

/** The values of our cookie: a sandbox's pages can set another of the same name, so every one is tried. */
export function linkCookies(header: string | undefined): string[] {
  if (header === undefined) return []
  return header
    .split(';')
    .map((part) => part.trim())
    .filter((part) => part.startsWith(`${COOKIE}=`))
    .map((part) => part.slice(COOKIE.length + 1))
}

/** The token of a link and the path without it; null when there is none. */
export function takeToken(path: string): { token: string; rest: string } | null {
  const mark = path.indexOf('?')
  if (mark < 0) return null
  const fields = path.slice(mark + 1).split('&')
  const found = fields.find((f) => f.startsWith(`${TOKEN_FIELD}=`))
  if (found === undefined) return null
  const others = fields.filter((f) => !f.startsWith(`${TOKEN_FIELD}=`)).join('&')
  return {
    token: found.slice(TOKEN_FIELD.length + 1),
    rest: others === '' ? path.slice(0, mark) : `${path.slice(0, mark)}?${others}`,
  }
}

export type Admission =
  | { readonly kind: 'pass'; readonly path: string }
  /** A fresh link: the browser is given the cookie and sent on without the token in its address. */
  | { readonly kind: 'redirect'; readonly location: string; readonly cookie: string }

/** Whether the request may reach the sandbox. Throws 401 when it may not. */
export async function admit(ctx: Context, request: IncomingMessage, asked: Asked): Promise<Admission> {
  if (asked.form === 'path') {
    // Cookies are never enough here: pages of every sandbox share this origin.
    const header = request.headers[KEY_HEADER]
    const key = typeof header === 'string' && header !== '' ? header : bearer(request.headers)
    if (key === null) throw fail('MISSING_API_KEY', {})
    if ((await ctx.keys.identify(key)) === null) throw fail('INVALID_API_KEY', {})
    return { kind: 'pass', path: asked.path }
  }
  const now = ctx.clock.now()
  const valid = (token: string): Promise<boolean> => ctx.links.verify(token, asked.sandbox, asked.port, now)
  const link = takeToken(asked.path)
  if (link !== null && (await valid(link.token))) {
    if (request.method !== 'GET' || request.headers.upgrade !== undefined)
      return { kind: 'pass', path: link.rest }
    // A path that begins with two slashes, of either kind, would be read as another host.
    const location = link.rest.replace(/^[/\\]+/, '/')
    return { kind: 'redirect', location, cookie: cookieOf(ctx, link.token, now) }
  }
  for (const token of linkCookies(request.headers.cookie)) {
    if (await valid(token)) return { kind: 'pass', path: link?.rest ?? asked.path }
  }
  throw fail('INVALID_API_KEY', {})
}

function cookieOf(ctx: Context, token: string, now: number): string {
  const expiresAt = Number(token.slice(0, token.indexOf('.')))
  const seconds = Math.max(1, Math.floor((expiresAt - now) / 1000))
  const secure = ctx.config.tls === undefined ? '' : '; Secure'
  return `${COOKIE}=${token}; Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Lax${secure}`
}
