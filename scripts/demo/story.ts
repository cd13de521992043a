import { styleText } from 'node:util'

/** Prints the demo as a story, and keeps count of what held. */
export interface Story {
  chapter(title: string): void
  say(line: string): void
  /** One claim, and whether it held. */
  check(claim: string, holds: boolean, detail?: string): void
  table(rows: readonly (readonly string[])[]): void
  readonly failed: number
  readonly passed: number
}

export function createStory(write: (text: string) => void): Story {
  let failed = 0
  let passed = 0
  const line = (text: string): void => write(`${text}\n`)
  return {
    chapter: (title) => line(`\n${styleText('bold', title)}`),
    say: (text) => line(`  ${text}`),
    check(claim, holds, detail) {
      if (holds) passed++
      else failed++
      const mark = holds ? styleText('green', '✓') : styleText('red', '✗')
      line(`  ${mark} ${claim}${detail === undefined ? '' : styleText('dim', `  ${detail}`)}`)
    },
    table(rows) {
      const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((r) => (r[i] ?? '').length)))
      for (const row of rows)
        line(
          `    ${row
            .map((cell, i) => cell.padEnd(widths[i] ?? 0))
            .join('  ')
            .trimEnd()}`,
        )
    },
    get failed() {
      return failed
    },
    get passed() {
      return passed
    },
  }
}

/** Waits until `probe` gives something, and says what it waited for when it does not. */
export async function until<T>(
  what: string,
  limitMs: number,
  probe: () => Promise<T | null | false>,
): Promise<T> {
  const end = performance.now() + limitMs
  let last: unknown = null
  for (;;) {
    try {
      const value = await probe()
      if (value !== null && value !== false) return value
    } catch (error) {
      last = error
    }
    if (performance.now() > end) throw new Error(`${what}: not within ${limitMs} ms`, { cause: last })
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
