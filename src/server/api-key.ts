import { chmodSync, existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '../model/clock.ts'
import type { Ids } from '../model/ids.ts'
import { hashApiKey, verifyApiKey } from '../store/secrets.ts'
import type { Store } from '../store/store.ts'
import type { ServerConfig } from './config.ts'

/**
 * Makes sure that there is a key. The first start makes one, shows it once and keeps only its hash, beside the CLI's
 * own copy in a 0600 file. A key given by HOLDFAST_API_KEY takes the place of every other one. Returns the key to show,
 * or null.
 */
export async function ensureApiKey(
  store: Store,
  config: ServerConfig,
  ids: Ids,
  clock: Clock,
): Promise<string | null> {
  const rows = await store.read((tx) => tx.apiKeys())
  const file = join(config.stateDir, 'cli.key')
  if (config.apiKey !== null) {
    await replaceKeys(store, ids, clock, config.apiKey)
    writeKey(file, config.apiKey)
    return null
  }
  if (rows.length > 0 && existsSync(file)) return null
  const key = `hf_${ids.secret()}`
  await put(store, ids, clock, 'cli', key)
  writeKey(file, key)
  return key
}

function writeKey(file: string, key: string): void {
  writeFileSync(file, `${key}\n`, { mode: 0o600 })
  chmodSync(file, 0o600)
}

/** The given key alone is valid from now on: whoever changes a key wants the former one to be refused. */
async function replaceKeys(store: Store, ids: Ids, clock: Clock, given: string): Promise<void> {
  const rows = await store.read((tx) => tx.apiKeys())
  const others = rows.filter((r) => !verifyApiKey(given, r.hash))
  await store.write(true, async (tx) => {
    for (const other of others) await tx.removeApiKey(other.id)
  })
  if (others.length === rows.length) await put(store, ids, clock, 'HOLDFAST_API_KEY', given)
}

async function put(store: Store, ids: Ids, clock: Clock, name: string, key: string): Promise<void> {
  await store.write(true, (tx) =>
    tx.putApiKey({ id: ids.next(), name, hash: hashApiKey(key), createdAt: clock.now() }),
  )
}
