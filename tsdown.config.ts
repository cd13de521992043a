import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { defineConfig, type UserConfig } from 'tsdown'

/** Read from disk when asked for (`/docs`), so they stay beside us as dependencies. */
const OUTSIDE = /^node:|swagger/

/** The licences of everything that is taken in, which its authors ask to be kept with it. */
function licences(ids: Iterable<string>): string {
  const dirs = new Set<string>()
  for (const id of ids) {
    const found = /^(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(id.replace(/^\0/, ''))?.[1]
    if (found !== undefined) dirs.add(found)
  }
  const parts = [...dirs].toSorted().map((dir) => {
    const { name, version, license } = JSON.parse(readFileSync(join(dir, 'package.json'), 'utf8')) as Record<
      string,
      string
    >
    const file = readdirSync(dir).find((f) => /^licen[cs]e/i.test(f))
    const text = file === undefined ? `Licence: ${license}` : readFileSync(join(dir, file), 'utf8').trim()
    return `${name} ${version}\n\n${text}\n`
  })
  return parts.join(`\n${'-'.repeat(72)}\n\n`)
}

/**
 * The published program: `dist/holdfast.js` starts, and one chunk per command is read when that command is asked for.
 * Dependencies are taken in: reading hundreds of small files is what a start otherwise spends its time on.
 */
const config: UserConfig = defineConfig({
  entry: { holdfast: 'src/cli/main.ts' },
  outDir: 'dist',
  format: 'esm',
  platform: 'node',
  // The start file must be readable by the older runtimes that it sends on to a newer one.
  target: 'node20',
  fixedExtension: false,
  dts: false,
  clean: true,
  sourcemap: false,
  deps: { alwaysBundle: (id: string) => !OUTSIDE.test(id), onlyBundle: false },
  hash: false,
  plugins: [
    {
      name: 'licences',
      generateBundle() {
        const source = licences(this.getModuleIds())
        this.emitFile({ type: 'asset', fileName: 'THIRD_PARTY_LICENSES.txt', source })
      },
    },
  ],
})
export default config
