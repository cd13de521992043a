import { createHash } from 'node:crypto'
import { type Ids, idFromBytes } from '../../src/model/ids.ts'

/** Identities that a seed decides, so that a run can be repeated and its objects named beforehand. */
export function createSeededIds(seed: number | string): Ids {
  let count = 0
  const bytes = (): Buffer =>
    createHash('sha256')
      .update(`${seed}/${(count += 1)}`)
      .digest()
  return {
    next: () => idFromBytes(bytes()),
    secret: () => bytes().toString('base64url'),
    random: () => bytes().readUInt32BE(0) / 2 ** 32,
  }
}
