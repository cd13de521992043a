/**
 * `npm run failpoints -- --engine docker|local [--quick] [--only kind[:point]]`: the built program kills itself with
 * SIGKILL at every point of every kind of step, in every scenario that leads there, and starts again. Ends with one
 * line of figures; exit code 0 only if every pair was hit and everything held.
 */
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { ALL_PAIRS, nameOf, runMatrix } from './failpoints-matrix.ts'

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      engine: { type: 'string', default: 'docker' },
      entry: { type: 'string', default: 'dist/holdfast.js' },
      only: { type: 'string', default: '' },
      quick: { type: 'boolean', default: false },
    },
  })
  const { engine, only } = values
  if (engine !== 'docker' && engine !== 'local') throw new Error('--engine is docker or local')
  const pairs = ALL_PAIRS.filter((p) => only === '' || p.kind === only || nameOf(p) === only)
  if (pairs.length === 0) throw new Error(`--only ${only} names no pair: ${ALL_PAIRS.map(nameOf).join(' ')}`)

  const began = performance.now()
  const r = await runMatrix({
    engine,
    entry: resolve(values.entry),
    pairs,
    oneScenario: values.quick,
    say: (line) => void process.stderr.write(`${line}\n`),
  })
  for (const v of r.violations) process.stderr.write(`VIOLATION ${v}\n`)
  const here = pairs.length - r.notHere.length
  const without = r.notHere.length === 0 ? '' : ` (and ${r.notHere.length} not on this engine)`
  const seconds = ((performance.now() - began) / 1000).toFixed(0)
  process.stdout.write(
    `failpoints on ${engine}: ${here} pairs${without}, ${r.hit.length} hit, ${r.violations.length} violations; ${r.cases} cases, ${r.acknowledged} acknowledged before the kill, ${r.samples} samples, in ${seconds} s\n`,
  )
  return r.violations.length === 0 && r.hit.length === here ? 0 : 1
}

process.exit(await main())
