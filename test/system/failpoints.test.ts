import { execFileSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ALL_PAIRS, nameOf, runMatrix } from '../campaign/failpoints-matrix.ts'
import { dockerMissing } from '../support/docker-subject.ts'

const root = resolve(import.meta.dirname, '../..')
// Of its own, since others may build and run `dist` at the same time.
const built = join(root, '.build', `failpoints-${process.pid}`)
const missing = await dockerMissing()

/** One pair per point at least, and steps of every kind of risk; all pairs: `npm run failpoints`. */
const QUICK = [
  'create-volume:after-effect',
  'create-instance:before-intent',
  'create-instance:after-effect',
  'start-instance:after-intent',
  'stop-instance:after-outcome',
  'pause-instance:after-effect',
  'pull-image:after-effect',
]

beforeAll(() => {
  const tsdown = join(root, 'node_modules/.bin/tsdown')
  execFileSync(tsdown, ['--out-dir', built], { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] })
})
afterAll(() => rmSync(built, { recursive: true, force: true }))

function suite(engine: 'docker' | 'local'): void {
  test(`the built program dies at named points of steps, and everything holds: ${engine}`, async () => {
    const said: string[] = []
    const result = await runMatrix({
      engine,
      entry: join(built, 'holdfast.js'),
      pairs: ALL_PAIRS.filter((p) => QUICK.includes(nameOf(p))),
      oneScenario: true,
      say: (line) => said.push(line),
    })
    expect(result.violations, said.join('\n')).toEqual([])
    expect([...result.hit, ...result.notHere].toSorted()).toEqual(QUICK.toSorted())
    expect(result.notHere).toEqual(engine === 'docker' ? [] : ['pull-image:after-effect'])
  })
}

describe('failpoints', () => {
  suite('local')
  if (missing === null) suite('docker')
  else test.skip(`docker: ${missing}`, () => undefined)
})
