import { chmodSync, existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '../model/clock.ts'
import type { Ids } from '../model/ids.ts'
import { hashApiKey, verifyApiKey } from '../store/secrets.ts'
import type { Store } from '../store/store.ts'
import type { ServerConfig } from './config.ts'

/**
 * Makes sure that there is a key. The first start makes one, shows it once and keeps only its hash, beside the CLI's
 * own copy in a 0600 file. A key given by HOLDFAST_API_KEY is accepted as well, and is not written to that file.
 * Returns the key to show, or null.
 */
export async function ensureApiKey(
  store: Store,
  config: ServerConfig,
  ids: Ids,
  clock: Clock,
): Promise<string | null> {
  const rows = await store.read((tx) => tx.apiKeys())
  if (config.apiKey !== null) {
    const given = config.apiKey
    if (!rows.some((r) => verifyApiKey(given, r.hash)))
      await put(store, ids, clock, 'HOLDFAST_API_KEY', given)
    return null
  }
  const file = join(config.stateDir, 'cli.key')
  if (rows.length > 0 && existsSync(file)) return null
  const key = `hf_${ids.secret()}`
  await put(store, ids, clock, 'cli', key)
  writeFileSync(file, `${key}\n`, { mode: 0o600 })
  chmodSync(file, 0o600)
  return key
}

async function put(store: Store, ids: Ids, clock: Clock, name: string, key: string): Promise<void> {
  await store.write(true, (tx) =>
    tx.putApiKey({ id: ids.next(), name, hash: hashApiKey(key), createdAt: clock.now() }),
  )
}
