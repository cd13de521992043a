import { setTimeout as delay } from 'node:timers/promises'

/** Between two looks of a wait, ms. */
const LOOK_EVERY_MS = 100

/**
 * Waits until `look` gives something other than null or false. Rejects after the limit, with what it waited for and
 * the last error or, when given, what `state` says then.
 */
export async function until<T>(
  what: string,
  limitMs: number,
  look: () => Promise<T | null | false>,
  state?: () => Promise<string>,
): Promise<T> {
  const end = performance.now() + limitMs
  let last: unknown = null
  for (;;) {
    try {
      const value = await look()
      if (value !== null && value !== false) return value
      last = null
    } catch (error) {
      last = error
    }
    if (performance.now() > end) break
    await delay(LOOK_EVERY_MS)
  }
  const now = state === undefined ? '' : `\n${await state().catch(String)}`
  throw new Error(
    `${what}: not within ${limitMs} ms${last instanceof Error ? ` (${last.message})` : ''}${now}`,
    {
      cause: last,
    },
  )
}
