import type { Clock } from '../../model/clock.ts'

/** Works through `items` with at most `width` at once. The first failure rejects, and no further item is begun. */
export async function mapBounded<T, R>(
  items: readonly T[],
  width: number,
  fn: (item: T) => Promise<R>,
): Promise<R[]> {
  const out: R[] = Array.from({ length: items.length })
  let next = 0
  let failed = false
  const worker = async (): Promise<void> => {
    while (!failed && next < items.length) {
      const at = next
      next += 1
      try {
        out[at] = await fn(items[at] as T)
      } catch (error) {
        failed = true
        throw error
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, worker))
  return out
}

/** Rejects with `error()` when the promise has not settled after `ms`; the promise itself goes on unheard. */
export function orAfter<T>(clock: Clock, ms: number, promise: Promise<T>, error: () => Error): Promise<T> {
  return new Promise((resolve, reject) => {
    const off = clock.after(ms, () => reject(error()))
    promise.then(
      (value) => {
        off()
        resolve(value)
      },
      (reason: unknown) => {
        off()
        reject(reason instanceof Error ? reason : new Error(String(reason)))
      },
    )
  })
}
