import { createHash, randomBytes, scryptSync, timingSafeEqual } from 'node:crypto'

/**
 * API keys are stored as salted hashes, in one of two forms:
 * `sha256$<salt>$<hash>` for a key that we made, whose 256 random bits leave nothing to guess, and
 * `scrypt$<N>$<salt>$<hash>` for one that a person chose.
 */

/** A key of our own making: `hf_` and 32 random bytes in base64url. */
const GENERATED = /^hf_[A-Za-z0-9_-]{43}$/

/** Work factor: about 10 ms and 4 MiB per guess. It stops the event loop for as long, so callers remember answers. */
const SCRYPT_N = 4096
/** A stored factor beyond this is damage, not a setting. */
const SCRYPT_N_MAX = 65_536
const SCRYPT_MEMORY_BYTES = 128 * 1024 * 1024
const HASH_BYTES = 32
const SALT_BYTES = 16

function fast(key: string, salt: Buffer): Buffer {
  return createHash('sha256').update(salt).update(key, 'utf8').digest()
}

function slow(key: string, salt: Buffer, n: number): Buffer {
  return scryptSync(Buffer.from(key, 'utf8'), salt, HASH_BYTES, {
    N: n,
    r: 8,
    p: 1,
    maxmem: SCRYPT_MEMORY_BYTES,
  })
}

/** The form of a key that may be stored. `salt` is 16 random bytes. */
export function hashApiKey(key: string, salt: Buffer = randomBytes(SALT_BYTES)): string {
  const text = salt.toString('base64url')
  if (GENERATED.test(key)) return `sha256$${text}$${fast(key, salt).toString('base64url')}`
  return `scrypt$${SCRYPT_N}$${text}$${slow(key, salt, SCRYPT_N).toString('base64url')}`
}

/** Whether `hash` was made from `key`, compared in constant time. False for a hash that cannot be read. */
export function verifyApiKey(key: string, hash: string): boolean {
  const parts = hash.split('$')
  if (parts[0] === 'sha256' && parts.length === 3) {
    return same(fast(key, bytes(parts[1])), bytes(parts[2]))
  }
  if (parts[0] === 'scrypt' && parts.length === 4) {
    const n = Number(parts[1])
    // A power of two within bounds; scrypt throws for all else.
    if (!Number.isInteger(n) || n < 2 || n > SCRYPT_N_MAX || (n & (n - 1)) !== 0) return false
    return same(slow(key, bytes(parts[2]), n), bytes(parts[3]))
  }
  return false
}

const bytes = (text: string | undefined): Buffer => Buffer.from(text ?? '', 'base64url')

function same(a: Buffer, b: Buffer): boolean {
  return a.length === b.length && timingSafeEqual(a, b)
}
