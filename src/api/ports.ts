import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Ids } from '../model/ids.ts'
import type { Store } from '../store/store.ts'

/** Where the signing key of port links is kept, so that a link outlives a restart of the server. */
const META_KEY = 'proxy.link-key'

/** What a link opens: one port of one sandbox, until then. */
export interface Grant {
  readonly sandbox: string
  readonly port: number
  /** Milliseconds since the epoch. */
  readonly expiresAt: number
}

export interface LinkSigner {
  sign(grant: Grant): Promise<string>
  /** True only for a token of ours for exactly this port of this sandbox, not yet expired. */
  verify(token: string, sandbox: string, port: number, now: number): Promise<boolean>
}

/** Tokens are `<expiry>.<mac>`; what they open is the host they are used on, so one cannot be moved to another. */
export function createLinkSigner(store: Store, ids: Ids): LinkSigner {
  let loaded: Promise<string> | null = null
  const key = (): Promise<string> => {
    loaded ??= loadKey(store, ids).catch((error: unknown) => {
      // The next use tries again: a full disk now must not end links for the life of the process.
      loaded = null
      throw error
    })
    return loaded
  }
  const mac = async (grant: Grant): Promise<Buffer> =>
    createHmac('sha256', await key())
      .update(`link-v1\n${grant.sandbox}\n${grant.port}\n${grant.expiresAt}`)
      .digest()
  return {
    async sign(grant) {
      return `${grant.expiresAt}.${(await mac(grant)).toString('base64url')}`
    },
    async verify(token, sandbox, port, now) {
      const match = /^(\d{1,15})\.([A-Za-z0-9_-]{43})$/.exec(token)
      if (match === null) return false
      const expiresAt = Number(match[1])
      if (expiresAt <= now) return false
      const given = Buffer.from(match[2] ?? '', 'base64url')
      const want = await mac({ sandbox, port, expiresAt })
      return given.length === want.length && timingSafeEqual(given, want)
    },
  }
}

async function loadKey(store: Store, ids: Ids): Promise<string> {
  const have = await store.read((tx) => tx.meta(META_KEY))
  if (have !== null) return have
  return store.write(true, async (tx) => {
    const raced = await tx.meta(META_KEY)
    if (raced !== null) return raced
    const made = ids.secret()
    await tx.setMeta(META_KEY, made)
    return made
  })
}
