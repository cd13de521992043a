import { ApiError, type Client, type Volume } from '@holdfast/client'
import type { Context } from './context.ts'
import { CliError, EXIT } from './errors.ts'

const FIRST_PAUSE_MS = 20
const LARGEST_PAUSE_MS = 500

async function look(client: Client, uid: string): Promise<Volume | null> {
  try {
    const volume = await client.volumes.get(uid)
    return volume.state === 'removed' ? null : volume
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null
    throw error
  }
}

/** Waits until a purged volume is gone from the engine. */
export async function waitUntilPurged(
  context: Context,
  client: Client,
  uid: string,
  label: string,
  timeoutMs: number,
): Promise<void> {
  const { io, progress, signal } = context
  const until = io.now() + timeoutMs
  let last = ''
  try {
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 1.5, LARGEST_PAUSE_MS)) {
      signal.throwIfAborted()
      try {
        const volume = await look(client, uid)
        if (volume === null) return
        last = volume.message || volume.state
      } catch (error) {
        if (!(error instanceof ApiError) || error.exitCode !== EXIT.unreachable) throw error
        last = error.message
      }
      progress.update(label, last)
      if (io.now() + pause > until) {
        throw new CliError(
          EXIT.timeout,
          `The volume ${label} was not gone after ${timeoutMs / 1000} s (${last}). Its removal goes on by itself.`,
          `holdfast volume inspect ${uid}`,
        )
      }
      await io.sleep(pause, signal)
    }
  } finally {
    progress.done(label)
  }
}
