/** RFC 3339 in milliseconds since the epoch; null for the zero time, which stands for "never", and for what is no time. */
export function parseTime(text: string | undefined): number | null {
  if (text === undefined || text.startsWith('0001-01-01T00:00:00')) return null
  const at = Date.parse(text)
  return Number.isNaN(at) ? null : at
}

/** Seconds with the fraction that the engine's `since` and `until` take. */
export function engineSeconds(ms: number): string {
  const whole = Math.floor(ms / 1000)
  return `${whole}.${String(Math.floor(ms - whole * 1000)).padStart(3, '0')}000000`
}
