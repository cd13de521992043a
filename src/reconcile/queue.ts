import type { Clock } from '../model/clock.ts'

/** Lets a worker give its place to others while it waits for something long that costs the engine nothing. */
export interface Slot {
  outside<T>(wait: () => Promise<T>): Promise<T>
}

export interface Queue {
  /** Enqueues a key. Background keys come after fresh ones. With `delayMs` it becomes due later; the earliest wins. */
  add(key: string, options?: { readonly background?: boolean; readonly delayMs?: number }): void
  /** Resolves after the key was processed once more from now on, or after `limitMs`. */
  settled(key: string, limitMs: number): Promise<void>
  readonly queued: number
  readonly running: number
  /** True when nothing is queued, due or running (delayed keys do not count). */
  readonly idle: boolean
  /** What waits, and for what: two queues that show the same go on in the same way. */
  describe(): QueueState
  /** No further key begins; resolves when those in hand are done. */
  stop(): Promise<void>
}

export interface QueueState {
  readonly fresh: readonly string[]
  readonly background: readonly string[]
  readonly running: readonly string[]
  /** Keys that run once more. */
  readonly again: readonly string[]
  /** Keys with the time at which they become due, on the monotonic clock. */
  readonly delayed: readonly (readonly [key: string, at: number])[]
}

export interface QueueOptions {
  readonly clock: Clock
  /** How many keys are worked on at once. */
  readonly limit: number
  readonly process: (key: string, slot: Slot) => Promise<void>
  /** A pass that threw: the queue goes on, the key is not retried by the queue itself. */
  readonly failed: (key: string, error: unknown) => void
}

/**
 * The keyed work queue: one worker per key at a time, a key added during its work runs once more, keys run concurrently
 * up to a limit. It carries keys and never events, so that a lost or doubled hint changes nothing.
 */
export function createQueue(options: QueueOptions): Queue {
  const { clock } = options
  const fresh = new Set<string>()
  const background = new Set<string>()
  const running = new Set<string>()
  const dirty = new Map<string, boolean>()
  const delayed = new Map<string, { at: number; cancel: () => void; background: boolean }>()
  const waiters = new Map<string, (() => void)[]>()
  const places: (() => void)[] = []
  let taken = 0
  let stopped = false
  const idleWaiters: (() => void)[] = []

  function add(key: string, how: { readonly background?: boolean; readonly delayMs?: number } = {}): void {
    if (stopped) return
    const back = how.background ?? false
    if (how.delayMs !== undefined && how.delayMs > 0) {
      delay(key, how.delayMs, back)
      return
    }
    const waiting = delayed.get(key)
    if (waiting !== undefined) {
      waiting.cancel()
      delayed.delete(key)
    }
    if (running.has(key)) {
      dirty.set(key, (dirty.get(key) ?? true) && back)
      return
    }
    if (!back) {
      background.delete(key)
      fresh.add(key)
    } else if (!fresh.has(key)) {
      background.add(key)
    }
    pump()
  }

  function delay(key: string, ms: number, back: boolean): void {
    const at = clock.monotonic() + ms
    const present = delayed.get(key)
    if (present !== undefined) {
      if (present.at <= at) return
      present.cancel()
    }
    const cancel = clock.after(ms, () => {
      delayed.delete(key)
      add(key, { background: back })
    })
    delayed.set(key, { at, cancel, background: back })
  }

  function next(): string | undefined {
    for (const set of [fresh, background]) {
      for (const key of set) {
        set.delete(key)
        return key
      }
    }
    return undefined
  }

  function pump(): void {
    while (!stopped && taken < options.limit && places.length === 0) {
      const key = next()
      if (key === undefined) return
      taken++
      running.add(key)
      void work(key)
    }
  }

  async function work(key: string): Promise<void> {
    const mine = waiters.get(key) ?? []
    waiters.delete(key)
    try {
      await options.process(key, { outside })
    } catch (error) {
      options.failed(key, error)
    }
    running.delete(key)
    release()
    for (const done of mine) done()
    const again = dirty.get(key)
    dirty.delete(key)
    if (again !== undefined) add(key, { background: again })
    pump()
    if (running.size === 0) for (const done of idleWaiters.splice(0)) done()
  }

  function release(): void {
    const waiting = places.shift()
    if (waiting !== undefined) waiting()
    else taken--
  }

  async function outside<T>(wait: () => Promise<T>): Promise<T> {
    release()
    pump()
    try {
      return await wait()
    } finally {
      if (taken < options.limit) taken++
      else await new Promise<void>((resolve) => places.push(resolve))
    }
  }

  function settled(key: string, limitMs: number): Promise<void> {
    return new Promise((resolve) => {
      const finish = (): void => {
        cancel()
        resolve()
      }
      const cancel = clock.after(limitMs, finish)
      const list = waiters.get(key)
      if (list === undefined) waiters.set(key, [finish])
      else list.push(finish)
    })
  }

  return {
    add,
    settled,
    get queued() {
      return fresh.size + background.size
    },
    get running() {
      return running.size
    },
    get idle() {
      return fresh.size + background.size + running.size === 0
    },
    describe: () => ({
      fresh: [...fresh],
      background: [...background],
      running: [...running],
      again: [...dirty.keys()],
      delayed: [...delayed].map(([key, { at }]) => [key, at]),
    }),
    async stop() {
      stopped = true
      for (const d of delayed.values()) d.cancel()
      delayed.clear()
      if (running.size > 0) await new Promise<void>((resolve) => idleWaiters.push(resolve))
    },
  }
}
