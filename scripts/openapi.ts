/**
 * Writes docs/openapi.json from the routes, without a store or an engine; with `--check`, only says whether the file
 * is what would be written (exit 1 when not).
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { pino } from 'pino'
import { openApiDocument } from '../src/api/openapi.ts'
import { VERSION } from '../src/server/version.ts'

const PATH = fileURLToPath(new URL('../docs/openapi.json', import.meta.url))

const text = `${JSON.stringify(await openApiDocument(VERSION, pino({ enabled: false })), null, 2)}\n`

if (!process.argv.includes('--check')) {
  mkdirSync(dirname(PATH), { recursive: true })
  writeFileSync(PATH, text)
  console.log('docs/openapi.json is written.')
} else if (present() === text) {
  console.log('docs/openapi.json is what the routes say.')
} else {
  console.error('docs/openapi.json is not what the routes say. Write it: npm run openapi')
  process.exitCode = 1
}

function present(): string {
  try {
    return readFileSync(PATH, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return ''
    throw error
  }
}
