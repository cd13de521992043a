import { stripVTControlCharacters, styleText } from 'node:util'

type Style = Parameters<typeof styleText>[0]

export interface Column<T> {
  readonly header: string
  readonly value: (row: T) => string
  /** Shown with `-o wide` only. */
  readonly wide?: boolean
  readonly style?: (row: T) => Style | null
}

/** Control characters in what a server or a sandbox says must not steer the terminal. */
export function plain(text: string): string {
  // oxlint-disable-next-line no-control-regex -- these are the characters to take out
  return stripVTControlCharacters(text).replaceAll(/[\u0000-\u001f\u007f-\u009f]+/g, ' ')
}

const WIDE =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u

/** Columns a text takes in a terminal. */
export function widthOf(text: string): number {
  let width = 0
  for (const char of text) width += /\p{Mark}/u.test(char) ? 0 : WIDE.test(char) ? 2 : 1
  return width
}

/** Lines of an aligned table, the last column unpadded. `stream` decides about colour (NO_COLOR, FORCE_COLOR, a terminal). */
export function table<T>(
  rows: readonly T[],
  columns: readonly Column<T>[],
  wide: boolean,
  stream: NodeJS.WriteStream,
): string {
  const shown = columns.filter((c) => wide || c.wide !== true)
  const cells = rows.map((row) => shown.map((c) => plain(c.value(row)) || '-'))
  const widths = shown.map((c, i) =>
    Math.max(c.header.length, ...cells.map((line) => widthOf(line[i] ?? ''))),
  )
  const pad = (text: string, i: number): string =>
    i === shown.length - 1 ? '' : ' '.repeat((widths[i] ?? 0) - widthOf(text) + 3)
  const head = shown.map((c, i) => c.header + pad(c.header, i)).join('')
  const lines = cells.map((line, r) =>
    line
      .map((text, i) => {
        const row = rows[r]
        const style = row === undefined ? null : (shown[i]?.style?.(row) ?? null)
        return (style === null ? text : styleText(style, text, { stream })) + pad(text, i)
      })
      .join(''),
  )
  return [head, ...lines].join('\n')
}

/** `name: value` lines with the values aligned; null values are left out. */
export function fields(entries: readonly (readonly [string, string | null])[]): string {
  const shown = entries.filter((e): e is readonly [string, string] => e[1] !== null && e[1] !== '')
  const width = Math.max(0, ...shown.map(([name]) => name.length))
  return shown
    .map(([name, value]) => `${name}:${' '.repeat(width - name.length + 2)}${plain(value)}`)
    .join('\n')
}

/** A span of time in its two largest units at most: `45s`, `3m20s`, `5h`, `2d4h`. */
export function span(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000))
  if (s < 60) return `${s}s`
  const pair = (big: number, unit: string, small: number, smallUnit: string): string =>
    `${big}${unit}${small === 0 ? '' : `${small}${smallUnit}`}`
  if (s < 3600) return pair(Math.floor(s / 60), 'm', s < 600 ? s % 60 : 0, 's')
  if (s < 86_400) return pair(Math.floor(s / 3600), 'h', s < 36_000 ? Math.floor((s % 3600) / 60) : 0, 'm')
  return pair(Math.floor(s / 86_400), 'd', s < 864_000 ? Math.floor((s % 86_400) / 3600) : 0, 'h')
}

export const ago = (time: string | null, now: number): string =>
  time === null ? '-' : span(now - Date.parse(time))

export function until(time: string | null, now: number): string {
  if (time === null) return 'never'
  const left = Date.parse(time) - now
  return left <= 0 ? 'now' : `in ${span(left)}`
}

const SIZE_UNITS = ['B', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi']

export function bytes(count: number | null): string {
  if (count === null) return '-'
  let value = count
  let unit = 0
  for (; value >= 1024 && unit < SIZE_UNITS.length - 1; unit++) value /= 1024
  const text = value >= 10 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1)
  return `${text}${SIZE_UNITS[unit]}`
}

export function stateStyle(state: string): Style | null {
  switch (state) {
    case 'Running':
      return 'green'
    case 'Failed':
    case 'Lost':
      return 'red'
    case 'Blocked':
    case 'Unknown':
      return 'yellow'
    case 'Stopped':
    case 'Terminated':
      return 'gray'
    default:
      return null
  }
}
