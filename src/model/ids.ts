/**
 * Identities. A sandbox id and a volume uid are 16 characters of `[a-z0-9]` that start with a letter: a valid
 * DNS label, short enough that `<id>-<port>` is one as well, and 80 bits of randomness, so that a name built
 * from one is never used twice.
 */
export type SandboxId = string
export type VolumeUid = string

/** The source of every identity; injected so that tests can name what will be made. */
export interface Ids {
  /** 16 characters of `[a-z0-9]`, the first a letter, never given out before. */
  next(): string
  /** A secret of 32 random bytes, base64url. */
  secret(): string
  /** A number in `[0, 1)`, for jitter. */
  random(): number
}

const LETTERS = 'abcdefghjkmnpqrstvwxyz'
const ALPHABET = `${LETTERS}0123456789`

/** Builds an id from 16 random bytes. The bias of the modulus costs less than one bit in all. */
export function idFromBytes(bytes: Uint8Array): string {
  let out = ''
  for (let i = 0; i < 16; i++) {
    const set = i === 0 ? LETTERS : ALPHABET
    out += set[(bytes[i] ?? 0) % set.length] ?? 'a'
  }
  return out
}

/** The container name of instance `number` of a sandbox; unique because the number is never reused. */
export function instanceName(sandbox: SandboxId, number: number): string {
  return `hf-${sandbox}-${number}`
}

/** The claim and the make that a physical name was built from; null for one that was not built from this uid. */
export function parseVolumeName(name: string, uid: VolumeUid): { claim: string; make: number } | null {
  const at = name.lastIndexOf(`-${uid}`)
  const end = name.slice(at + uid.length + 1)
  if (at < 1 || !/^(-[1-9]\d*)?$/.test(end)) return null
  return { claim: name.slice(0, at), make: end === '' ? 1 : Number(end.slice(1)) }
}

/** Whether a name is that of an instance of this sandbox, of any number. */
export function isInstanceOf(name: string, sandbox: SandboxId): boolean {
  const head = `hf-${sandbox}-`
  return name.startsWith(head) && /^\d+$/.test(name.slice(head.length))
}

/**
 * The engine's name for a volume. It contains the uid, and `make` grows when one is made anew, also past what a restored store knows,
 * so no physical name is ever used twice (DESIGN §4.6).
 */
export function physicalVolumeName(claim: string, uid: VolumeUid, make: number): string {
  const head = claim.slice(0, 80)
  return make <= 1 ? `${head}-${uid}` : `${head}-${uid}-${make}`
}
