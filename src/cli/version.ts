import { readFileSync } from 'node:fs'

/** From the package file, which lies two directories up from the sources and one up from the bundle. */
function readVersion(): string {
  for (const place of ['../../package.json', '../package.json']) {
    try {
      const found = JSON.parse(readFileSync(new URL(place, import.meta.url), 'utf8')) as {
        name?: string
        version?: string
      }
      if (found.name === 'holdfast' && found.version !== undefined) return found.version
    } catch {
      // Not at this place: the other one is tried.
    }
  }
  return 'unknown'
}

export const VERSION: string = readVersion()
