/**
 * `npm test`: the checks, the quick tests, then every engine that this machine has, and the whole program. Quick
 * things come first, so that they fail first. An engine that is missing is skipped with its reason, unless
 * HOLDFAST_REQUIRE_ENGINES names it. Ends with the one line `N passed, N failed`.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '..')
const bin = (name: string): string => join(root, 'node_modules/.bin', name)
/** A stage that hangs is ended after this, ms. */
const STAGE_LIMIT_MS = 1_500_000

interface Stage {
  readonly name: string
  readonly command: readonly string[]
  /** A vitest project: its own counts are added; any other stage counts as one. */
  readonly vitest?: boolean
}

const vitest = (project: string, ...rest: string[]): Stage => ({
  name: `${project} tests`,
  command: [bin('vitest'), 'run', '--project', project, '--reporter=default', '--reporter=json', ...rest],
  vitest: true,
})

const STAGES: readonly Stage[] = [
  { name: 'types', command: [bin('tsc'), '-b'] },
  { name: 'imports', command: [process.execPath, 'scripts/imports.ts'] },
  { name: 'lint', command: [bin('oxlint'), '--type-aware', '--deny-warnings'] },
  { name: 'format', command: [bin('oxfmt'), '--check', '.'] },
  { name: 'openapi', command: [process.execPath, 'scripts/openapi.ts', '--check'] },
  vitest('quick'),
  vitest('engines'),
  vitest('system'),
]

interface Count {
  passed: number
  failed: number
  skipped: number
}

function run(stage: Stage, env: NodeJS.ProcessEnv): Promise<number> {
  return new Promise((done, reject) => {
    const [program = '', ...args] = stage.command
    const child = spawn(program, args, { cwd: root, env, stdio: ['ignore', 'inherit', 'inherit'] })
    const timer = setTimeout(() => {
      process.stderr.write(`${stage.name}: ended after ${STAGE_LIMIT_MS} ms\n`)
      child.kill('SIGKILL')
    }, STAGE_LIMIT_MS)
    child.on('error', reject)
    child.on('exit', (code) => {
      clearTimeout(timer)
      done(code ?? 1)
    })
  })
}

function countsOf(file: string, count: Count): boolean {
  try {
    const report = JSON.parse(readFileSync(file, 'utf8')) as Record<string, number>
    count.passed += report['numPassedTests'] ?? 0
    count.failed += report['numFailedTests'] ?? 0
    count.skipped += (report['numPendingTests'] ?? 0) + (report['numTodoTests'] ?? 0)
    return (report['numTotalTests'] ?? 0) > 0
  } catch (error) {
    process.stderr.write(`no report was written: ${String(error)}\n`)
    return false
  }
}

const dir = mkdtempSync(join(tmpdir(), 'holdfast-test-'))
const count: Count = { passed: 0, failed: 0, skipped: 0 }
const only = process.argv.slice(2)
for (const stage of STAGES.filter((s) => only.length === 0 || only.some((o) => s.name.startsWith(o)))) {
  process.stdout.write(`\n== ${stage.name}\n`)
  const report = join(dir, `${stage.name.replaceAll(' ', '-')}.json`)
  const command = stage.vitest ? [...stage.command, `--outputFile.json=${report}`] : stage.command
  const began = performance.now()
  const code = await run({ ...stage, command }, { ...process.env, HOLDFAST_TEST: '1' })
  const before = count.failed
  const counted = stage.vitest === true && countsOf(report, count)
  if (!counted) count[code === 0 && stage.vitest !== true ? 'passed' : 'failed']++
  else if (code !== 0 && count.failed === before) count.failed++
  process.stdout.write(
    `== ${stage.name}: ${code === 0 ? 'ok' : `failed (${code})`} in ${((performance.now() - began) / 1000).toFixed(1)} s\n`,
  )
  if (code !== 0 && !process.env['HOLDFAST_KEEP_GOING']) break
}
rmSync(dir, { recursive: true, force: true })
const skipped = count.skipped > 0 ? `, ${count.skipped} skipped` : ''
process.stdout.write(`\n${count.passed} passed, ${count.failed} failed${skipped}\n`)
process.exit(count.failed === 0 && count.passed > 0 ? 0 : 1)
