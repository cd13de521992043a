import { expect, test } from 'vitest'
import { hashApiKey, verifyApiKey } from './secrets.ts'

const generated = `hf_${'Ab3_'.repeat(10)}xyz`

test.each([
  ['a key we made', generated, 'sha256$'],
  ['a key a person chose', 'hunter2', 'scrypt$4096$'],
  ['a key that only begins like ours', 'hf_secret', 'scrypt$4096$'],
])('%s fits its own hash and no other', (_what, key, form) => {
  const hash = hashApiKey(key)
  expect(hash.startsWith(form)).toBe(true)
  expect(hash).not.toContain(key)
  expect(verifyApiKey(key, hash)).toBe(true)
  expect(verifyApiKey(`${key}x`, hash)).toBe(false)
  expect(verifyApiKey('', hash)).toBe(false)
})

test('two hashes of one key differ', () => {
  expect(hashApiKey(generated)).not.toBe(hashApiKey(generated))
})

test.each([
  '',
  'sha256$a',
  'sha256$$',
  'scrypt$4096$$',
  'scrypt$3$aa$bb',
  'scrypt$1073741824$aa$bb',
  'md5$a$b',
])('a damaged hash %j fits nothing', (hash) => {
  expect(verifyApiKey('', hash)).toBe(false)
  expect(verifyApiKey(generated, hash)).toBe(false)
})
