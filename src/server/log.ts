import { destination, type DestinationStream } from 'pino'

const STDERR = 2
/** Lines that wait for room are kept up to this many bytes; later ones are dropped. */
const WAITING_BYTES = 256 * 1024

/**
 * Where the log goes. A log that cannot be written, as on a full disk, is no reason to end: its lines wait for room,
 * and the control plane, which nobody else replaces, goes on.
 */
export function logDestination(fd: number = STDERR): DestinationStream {
  const out = destination({ dest: fd, sync: true, maxLength: WAITING_BYTES })
  // Without a listener each failed write would be an uncaught error. There is nowhere to tell of it.
  out.on('error', () => undefined)
  return out
}

/** The same for what is said to people beside the log. */
export function tolerateStderr(): void {
  if (process.stderr.listenerCount('error') === 0) process.stderr.on('error', () => undefined)
}
