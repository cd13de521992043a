import { createHash } from 'node:crypto'
import type { Clock } from '../model/clock.ts'
import { verifyApiKey } from '../store/secrets.ts'
import type { Store } from '../store/store.ts'

/** Which API key a text is. */
export interface KeyRing {
  /** The id of the key's row, or null when it is none of ours. */
  identify(key: string): Promise<string | null>
}

/** How long an answer is remembered, milliseconds: a salted hash per request would cost more than the request. */
const REMEMBER_MS = 10_000
/** More answers than this are not remembered: guesses must not grow the memory. */
const REMEMBER_MAX = 1_000
/** Longer texts are no keys of ours; hashing them would only be work. */
const KEY_MAX_CHARS = 512

export function createKeyRing(store: Store, clock: Clock): KeyRing {
  const known = new Map<string, { id: string | null; until: number }>()
  return {
    async identify(key) {
      if (key === '' || key.length > KEY_MAX_CHARS) return null
      // Looked up by digest, so that the time a look-up takes tells nothing about the key.
      const digest = createHash('sha256').update(key).digest('base64')
      const hit = known.get(digest)
      if (hit !== undefined && hit.until > clock.monotonic()) return hit.id
      const rows = await store.read((tx) => tx.apiKeys())
      let id: string | null = null
      // Every row is tried: the time must not tell which one fitted.
      for (const row of rows) if (verifyApiKey(key, row.hash) && id === null) id = row.id
      if (known.size >= REMEMBER_MAX) known.clear()
      known.set(digest, { id, until: clock.monotonic() + REMEMBER_MS })
      return id
    },
  }
}
