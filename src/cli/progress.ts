import { plain } from './render.ts'

export interface Progress {
  /** What one piece of work is doing now; shown only in a terminal or when asked for. */
  update(key: string, text: string): void
  /** The piece is over; its text goes. */
  done(key: string): void
  /** A line that stays, always shown. */
  tell(line: string): void
  /** Takes the moving line away, before something else is printed. */
  clear(): void
}

/** In a terminal one line that changes; with `--progress` elsewhere a line for each change; else nothing. */
export function createProgress(stream: NodeJS.WriteStream, asked: boolean | undefined): Progress {
  const moving = stream.isTTY === true && asked !== false
  const lines = !moving && asked === true
  const texts = new Map<string, string>()
  let drawn = false

  const clear = (): void => {
    if (drawn) stream.write('\r\u001b[K')
    drawn = false
  }
  const draw = (): void => {
    clear()
    if (texts.size === 0) return
    const all = [...texts].map(([key, text]) => `${key}: ${text}`).join(' · ')
    stream.write(plain(all).slice(0, Math.max(10, (stream.columns ?? 80) - 1)))
    drawn = true
  }
  return {
    update: (key, text) => {
      if (texts.get(key) === text) return
      texts.set(key, text)
      if (moving) draw()
      if (lines) stream.write(`${plain(`${key}: ${text}`)}\n`)
    },
    done: (key) => {
      texts.delete(key)
      if (moving) draw()
    },
    tell: (line) => {
      clear()
      stream.write(`${line}\n`)
      if (moving) draw()
    },
    clear,
  }
}
