/** A query string with its question mark, or nothing. */
export const query = (values: Readonly<Record<string, string | number | boolean | undefined>>): string => {
  const params = new URLSearchParams()
  for (const [name, value] of Object.entries(values)) if (value !== undefined) params.set(name, String(value))
  const text = params.toString()
  return text === '' ? '' : `?${text}`
}
