import type { Clock } from '../../model/clock.ts'
import { EngineError, type EngineErrorKind } from '../../model/facts.ts'
import type { Call } from '../engine.ts'

/** An error that certainly changed nothing. */
export function refuse(kind: EngineErrorKind, message: string, cause?: unknown): EngineError {
  return new EngineError(kind, 'none', message, cause === undefined ? undefined : { cause })
}

export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** True for "there is no such thing", which is the only failure that proves an absence. */
export function isAbsent(error: unknown): boolean {
  const code = errnoOf(error)
  return code === 'ENOENT' || code === 'ENOTDIR'
}

function toEngineError(error: unknown, what: string): EngineError {
  if (error instanceof EngineError) return error
  const code = errnoOf(error)
  const kind: EngineErrorKind =
    code === 'ENOSPC' || code === 'EDQUOT'
      ? 'disk-full'
      : code === 'EACCES' || code === 'EPERM'
        ? 'denied'
        : 'failed'
  return new EngineError(kind, 'unknown', `${what}: ${messageOf(error)}`, { cause: error })
}

/** What one call hands to its work: the signal that ends it, and the fence to ask right before a change. */
export interface Work {
  readonly signal: AbortSignal
  readonly fence: () => void
}

/**
 * The frame of every call: refused before it begins when aborted, given up (effect unknown) when aborted or over its
 * limit on the way. The work sees the same signal, so that it stops changing things soon after its caller has left.
 */
export async function framed<T>(
  clock: Clock,
  call: Call,
  what: string,
  work: (w: Work) => Promise<T>,
): Promise<T> {
  if (call.signal?.aborted) throw refuse('aborted', `${what} was aborted before it began`)
  const ender = new AbortController()
  let giveUp: (error: EngineError) => void = () => undefined
  const given = new Promise<never>((_resolve, reject) => (giveUp = reject))
  const end = (kind: 'aborted' | 'timeout', why: string): void => {
    const error = new EngineError(kind, 'unknown', why)
    ender.abort(error)
    giveUp(error)
  }
  const onAbort = (): void => end('aborted', `${what} was aborted on its way`)
  call.signal?.addEventListener('abort', onAbort, { once: true })
  const cancel = clock.after(call.limitMs, () =>
    end('timeout', `${what} took longer than ${call.limitMs} ms`),
  )
  try {
    const doing = work({ signal: ender.signal, fence: call.fence ?? (() => undefined) })
    // When the frame has given up, nobody else is left to hear that the work failed as well.
    doing.catch(() => undefined)
    return await Promise.race([doing, given])
  } catch (error) {
    throw toEngineError(error, what)
  } finally {
    cancel()
    call.signal?.removeEventListener('abort', onAbort)
  }
}

/** Runs work on one key after another, in the order of arrival. */
export interface Locks {
  hold<T>(key: string, work: () => Promise<T>): Promise<T>
}

export function createLocks(): Locks {
  const tails = new Map<string, Promise<unknown>>()
  return {
    async hold(key, work) {
      const before = tails.get(key) ?? Promise.resolve()
      const mine = before.then(work, work)
      // The tail never rejects: whoever waits for its turn has no part in how the one before ended.
      const tail = mine.then(
        () => undefined,
        () => undefined,
      )
      tails.set(key, tail)
      try {
        return await mine
      } finally {
        if (tails.get(key) === tail) tails.delete(key)
      }
    },
  }
}
