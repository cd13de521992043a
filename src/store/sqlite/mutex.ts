/** Runs one function at a time, in the order they came. Nothing that waits here is dropped or reordered. */
export interface Mutex {
  run<T>(fn: () => Promise<T>): Promise<T>
}

export function createMutex(): Mutex {
  let tail: Promise<unknown> = Promise.resolve()
  return {
    run: (fn) => {
      const mine = tail.then(fn)
      // The next in line waits for the end of this one, not for its success; the caller gets the error.
      tail = mine.then(
        () => undefined,
        () => undefined,
      )
      return mine
    },
  }
}
