import type { Store, WriteTx } from '../store/store.ts'
import type { EventBell } from './deps.ts'

/** A bell for one process. `ring` wakes everybody who waits now. */
export function createEventBell(): EventBell & { ring(): void } {
  let waiting = new Set<() => void>()
  return {
    ring() {
      const wake = waiting
      waiting = new Set()
      for (const fn of wake) fn()
    },
    wait(signal) {
      return new Promise((resolve) => {
        if (signal.aborted) {
          resolve()
          return
        }
        const done = (): void => {
          waiting.delete(done)
          signal.removeEventListener('abort', done)
          resolve()
        }
        waiting.add(done)
        signal.addEventListener('abort', done, { once: true })
      })
    },
  }
}

/** The same store, ringing after each committed write that appended an event. */
export function ringOnEvents(store: Store, bell: { ring(): void }): Store {
  return {
    get installation() {
      return store.installation
    },
    get epoch() {
      return store.epoch
    },
    read: (fn) => store.read(fn),
    assertFence: () => store.assertFence(),
    close: () => store.close(),
    async write<T>(durable: boolean, fn: (tx: WriteTx) => Promise<T>): Promise<T> {
      let appended = false
      const value = await store.write(durable, (tx) => {
        appended = false
        const watched: WriteTx = Object.create(tx, {
          appendEvent: {
            value: (...args: Parameters<WriteTx['appendEvent']>) => {
              appended = true
              return tx.appendEvent(...args)
            },
          },
        }) as WriteTx
        return fn(watched)
      })
      if (appended) bell.ring()
      return value
    },
  }
}
