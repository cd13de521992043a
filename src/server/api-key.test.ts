import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { verifyApiKey } from '../store/secrets.ts'
import { memoryStore, type MemoryStore } from '../store/sqlite/testing.ts'
import { ensureApiKey } from './api-key.ts'
import { loadConfig } from './config.ts'
import { systemClock, systemIds } from './system.ts'

let stateDir: string
let store: MemoryStore
beforeEach(() => {
  stateDir = mkdtempSync(join(tmpdir(), 'holdfast-api-key-'))
  store = memoryStore(systemClock(), systemIds())
})
afterEach(async () => {
  await store.close()
  rmSync(stateDir, { recursive: true })
})

const ensure = (apiKey?: string): Promise<string | null> =>
  ensureApiKey(store, loadConfig({ stateDir, apiKey }, {}), systemIds(), systemClock())

async function isValid(key: string): Promise<boolean> {
  const rows = await store.read((tx) => tx.apiKeys())
  return rows.some((row) => verifyApiKey(key, row.hash))
}

const copy = (): string => readFileSync(join(stateDir, 'cli.key'), 'utf8').trim()

describe('the API key', () => {
  it('is made and shown once, kept as a hash, with a copy that only its owner reads', async () => {
    const key = await ensure()
    expect(key).toBe(copy())
    expect(statSync(join(stateDir, 'cli.key')).mode & 0o777).toBe(0o600)
    expect(await isValid(copy())).toBe(true)
    expect(JSON.stringify(await store.read((tx) => tx.apiKeys()))).not.toContain(copy())
    expect(await ensure()).toBeNull()
    expect(await store.read((tx) => tx.apiKeys())).toHaveLength(1)
  })

  it('given by HOLDFAST_API_KEY and changed later revokes the former', async () => {
    expect(await ensure('first')).toBeNull()
    await ensure('second')
    expect([await isValid('first'), await isValid('second')]).toEqual([false, true])
    expect(copy()).toBe('second')
    await ensure('second')
    expect(await store.read((tx) => tx.apiKeys())).toHaveLength(1)
  })

  it('given by HOLDFAST_API_KEY takes the place of the one that was made', async () => {
    const made = await ensure()
    await ensure('given')
    expect([await isValid(made ?? ''), await isValid('given')]).toEqual([false, true])
  })
})
