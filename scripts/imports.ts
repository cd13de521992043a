/**
 * Checks that arrows between the rooms of `src/` point one way. The table is the law; a room that is not in it may not
 * exist. Type-only imports count: an arrow is an arrow.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve, sep } from 'node:path'

const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  model: [],
  plan: ['model'],
  store: ['model'],
  engines: ['model'],
  reconcile: ['model', 'plan', 'store', 'engines'],
  guest: ['model', 'engines'],
  api: ['model', 'plan', 'store', 'engines', 'reconcile', 'guest'],
  recovery: ['model', 'plan', 'store', 'engines'],
  cli: ['client', 'main'],
  server: ['model', 'store', 'engines', 'reconcile', 'guest', 'api'],
  main: ['model', 'plan', 'store', 'engines', 'reconcile', 'guest', 'recovery', 'api', 'server'],
  client: ['model'],
}

const root = resolve(import.meta.dirname, '..')

function files(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((e) => {
    const path = join(dir, e.name)
    if (e.isDirectory()) return e.name === 'node_modules' ? [] : files(path)
    return e.name.endsWith('.ts') && !e.name.endsWith('.test.ts') ? [path] : []
  })
}

function roomOf(path: string): string {
  const parts = relative(root, path).split(sep)
  if (parts[0] === 'client') return 'client'
  if (parts[0] !== 'src') return 'outside'
  return parts[1] === 'main.ts' ? 'main' : (parts[1] ?? '')
}

const IMPORT = /(?:from\s+|import\s*\(\s*|import\s+)['"]([^'"]+)['"]/g
const faults: string[] = []
for (const file of [...files(join(root, 'src')), ...files(join(root, 'client/src'))]) {
  const from = roomOf(file)
  const allowed = MAY_IMPORT[from]
  if (allowed === undefined) {
    faults.push(`${relative(root, file)}: the room "${from}" is not in the table`)
    continue
  }
  for (const [, target = ''] of readFileSync(file, 'utf8').matchAll(IMPORT)) {
    const to = target.startsWith('.')
      ? roomOf(resolve(dirname(file), target))
      : target === '@holdfast/client'
        ? 'client'
        : null
    if (to === null || to === from || allowed.includes(to)) continue
    faults.push(`${relative(root, file)}: ${from} may not import ${to} (${target})`)
  }
}

for (const f of faults) console.error(f)
console.log(
  faults.length === 0
    ? 'imports: every arrow points the right way'
    : `imports: ${faults.length} arrows point the wrong way`,
)
process.exit(faults.length === 0 ? 0 : 1)
