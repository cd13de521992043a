/** The part of a sink that is used here. The tar library's sinks are not Node's own streams, and Node's `pipeline` does not see their end. */
export interface Sink {
  write(chunk: Uint8Array): boolean
  end(): void
  destroy(error?: Error): void
  readonly destroyed: boolean
  once(event: 'drain' | 'close', listener: () => void): unknown
  off(event: 'drain' | 'close', listener: () => void): unknown
}

function drained(sink: Sink): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      sink.off('drain', settle)
      sink.off('close', settle)
      if (sink.destroyed) reject(new Error('the reader went away'))
      else resolve()
    }
    sink.once('drain', settle)
    sink.once('close', settle)
    if (sink.destroyed) settle()
  })
}

/** Writes everything as fast as the sink takes it and ends it; when the source fails, so do both. */
export async function feed(source: AsyncIterable<Uint8Array>, sink: Sink): Promise<void> {
  try {
    for await (const chunk of source) {
      if (sink.destroyed) throw new Error('the reader went away')
      if (!sink.write(chunk)) await drained(sink)
    }
    sink.end()
  } catch (error) {
    sink.destroy(error instanceof Error ? error : new Error(String(error)))
    throw error
  }
}
