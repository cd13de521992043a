/** Sizes to say when nobody knows the terminal's. */
const FALLBACK = { columns: 80, rows: 24 }

export function sizeOf(stream: NodeJS.WriteStream): { columns: number; rows: number } {
  return stream.columns > 0 && stream.rows > 0 ? { columns: stream.columns, rows: stream.rows } : FALLBACK
}

/** Signals that end this process while the terminal is raw, with the number a shell shows for each. */
const DEADLY = { SIGTERM: 143, SIGHUP: 129 } as const

/**
 * Sets the terminal raw, so that every key, Ctrl-C too, goes to the command. The returned function restores it and
 * may be called often; it also runs when this process exits or is told to.
 */
export function rawTerminal(stdin: NodeJS.ReadStream): () => void {
  stdin.setRawMode(true)
  const restore = (): void => {
    stdin.setRawMode(false)
    process.off('exit', restore)
    for (const [signal, handler] of handlers) process.off(signal, handler)
  }
  const handlers = Object.entries(DEADLY).map(([signal, code]) => {
    const handler = (): void => process.exit(code)
    return [signal, handler] as const
  })
  process.on('exit', restore)
  for (const [signal, handler] of handlers) process.on(signal, handler)
  return restore
}
