import { defineConfig, type UserConfig } from 'tsdown'

/**
 * The published program: `dist/holdfast.js` starts, and one chunk per command is read when that command is asked for.
 * The client, which is a package of its own, is taken in; what npm installs beside us stays outside.
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
  deps: { alwaysBundle: ['@holdfast/client'] },
  hash: false,
})
export default config
