import { once } from 'node:events'

/** Writes and waits while the reader is slow, so that what a sandbox says is not piled up here. */
export async function writeAll(stream: NodeJS.WritableStream, data: Uint8Array | string): Promise<void> {
  if (!stream.write(data)) await once(stream, 'drain')
}
