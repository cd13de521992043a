/**
 * What keeps a control plane from acting on wishes that it may no longer be right about: its store was put back from
 * a backup, or made anew from what the engine tells. Until a person confirms it, nothing is removed, and what was
 * wished before it began is not acted upon.
 */
export interface Hold {
  /** `unreadable`: something holds, and what it was cannot be read any more. */
  readonly reason: 'restored' | 'rebuilt' | 'unreadable'
  /** Milliseconds since the epoch. */
  readonly since: number
  /** When the backup was made; null for another reason. */
  readonly backupAt: number | null
}

/** The key under which the store keeps it. */
export const HOLD_META = 'hold'
/** The stored value once a person has lifted it: the store knows no removal of a key. */
export const HOLD_LIFTED = ''

export const encodeHold = (hold: Hold): string => JSON.stringify(hold)

/** Null when nothing holds. A value that cannot be read holds: the doubt must not be what lets removals go on. */
export function decodeHold(text: string | null): Hold | null {
  if (text === null || text === HOLD_LIFTED) return null
  const unreadable: Hold = { reason: 'unreadable', since: 0, backupAt: null }
  try {
    const { reason, since, backupAt } = JSON.parse(text) as Record<string, unknown>
    if ((reason !== 'restored' && reason !== 'rebuilt') || typeof since !== 'number') return unreadable
    return { reason, since, backupAt: typeof backupAt === 'number' ? backupAt : null }
  } catch {
    // Not JSON: damage, and no leave to remove anything.
    return unreadable
  }
}

/** Why it holds, as the end of a sentence. */
export function holdCause(hold: Hold): string {
  switch (hold.reason) {
    case 'restored': {
      const of = hold.backupAt === null ? '' : ` of ${new Date(hold.backupAt).toISOString()}`
      return `this store was restored from a backup${of}`
    }
    case 'rebuilt':
      return 'this store was rebuilt from what the engine tells'
    case 'unreadable':
      return 'the store says that it was restored or rebuilt, and the rest of that note is damaged'
  }
}

/**
 * The first epoch of a store that was restored or rebuilt. A server raises the epoch by one at each start, so no
 * server on an older copy has ever counted as far as the seconds since 1970.
 */
export function epochAfter(known: number, now: number): number {
  return Math.max(known, Math.floor(now / 1000)) + 1
}
