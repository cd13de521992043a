/**
 * `npm run mutants [-- --only name]`: puts each deliberate bug of `test/mutants/` into a copy of the sources and runs
 * the one test that has to catch it, which must pass without it. Exit code 0 only if every one was caught by a test
 * that ran and failed; a bug that keeps the sources from loading counts as not caught.
 */
import { spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { MUTANTS } from '../test/mutants/index.ts'
import type { Catcher, Mutant } from '../test/mutants/types.ts'

const root = resolve(import.meta.dirname, '..')
const COPIED = [
  'src',
  'test',
  'client',
  'scripts',
  'docs',
  'package.json',
  'tsconfig.json',
  'vitest.config.ts',
]
/** One run of one test file; a bug that makes it hang is not caught but ended, ms. */
const RUN_LIMIT_MS = 240_000
/** The machine has as many cores at least. */
const AT_ONCE = 2

interface TestResult {
  readonly file: string
  readonly name: string
  readonly status: string
}

interface Run {
  readonly tests: readonly TestResult[]
  readonly output: string
}

interface Verdict {
  readonly mutant: Mutant
  readonly caught: boolean
  readonly detail: string
  readonly ms: number
}

/** A tree of its own, in which bugs can come and go. */
function openCopy(): { readonly dir: string; readonly close: () => void } {
  const dir = mkdtempSync(join(tmpdir(), 'hf-mutants-'))
  const filter = (from: string): boolean => !/\/(node_modules|dist)$/.test(from)
  for (const name of COPIED) cpSync(join(root, name), join(dir, name), { recursive: true, filter })
  symlinkSync(join(root, 'node_modules'), join(dir, 'node_modules'))
  symlinkSync(join(root, 'client/node_modules'), join(dir, 'client/node_modules'))
  return { dir, close: () => rmSync(dir, { recursive: true, force: true }) }
}

interface Report {
  readonly testResults: readonly {
    readonly name: string
    readonly assertionResults: readonly { readonly fullName: string; readonly status: string }[]
  }[]
}

const escaped = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)

function vitest(dir: string, project: string, files: readonly string[], test?: string): Promise<Run> {
  const report = join(dir, 'report.json')
  rmSync(report, { force: true })
  const args = [
    join(root, 'node_modules/vitest/vitest.mjs'),
    'run',
    '--project',
    project,
    '--reporter=json',
    `--outputFile=${report}`,
    ...(test === undefined ? [] : ['-t', escaped(test)]),
    ...files,
  ]
  return new Promise((done, reject) => {
    let output = ''
    const child = spawn(process.execPath, args, { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += String(chunk)))
    const timer = setTimeout(() => child.kill('SIGKILL'), RUN_LIMIT_MS)
    child.on('error', reject)
    child.on('close', () => {
      clearTimeout(timer)
      done({ tests: testsOf(dir, report), output })
    })
  })
}

function testsOf(dir: string, file: string): TestResult[] {
  let report: Report
  try {
    report = JSON.parse(readFileSync(file, 'utf8')) as Report
  } catch {
    // It was ended, or could not begin: no test ran.
    return []
  }
  return report.testResults.flatMap(({ name, assertionResults }) =>
    assertionResults
      .filter((t) => t.status === 'passed' || t.status === 'failed')
      .map((t) => ({ file: name.slice(dir.length + 1), name: t.fullName, status: t.status })),
  )
}

const named = (tests: readonly TestResult[], by: Catcher): TestResult[] =>
  tests.filter((t) => t.file === by.file && t.name.includes(by.test))

/** What is wrong with the list itself: texts that are not there once, tests that are missing or fail without the bug. */
async function checkList(mutants: readonly Mutant[], dir: string): Promise<string[]> {
  const problems: string[] = []
  const names = new Set(MUTANTS.map((m) => m.name))
  if (names.size !== MUTANTS.length) problems.push('two mutants have one name')
  for (const m of mutants) {
    const times = readFileSync(join(dir, m.file), 'utf8').split(m.find).length - 1
    if (times !== 1)
      problems.push(`${m.name}: its text is ${times} times in ${m.file}, and must be there once`)
  }
  const tests: TestResult[] = []
  let output = ''
  for (const project of new Set(mutants.map((m) => m.caughtBy.project))) {
    const by = mutants.filter((m) => m.caughtBy.project === project).map((m) => m.caughtBy.file)
    const run = await vitest(dir, project, [...new Set(by)])
    tests.push(...run.tests)
    output += run.output
  }
  for (const { name, caughtBy } of mutants) {
    const found = named(tests, caughtBy)
    const failed = found.find((t) => t.status !== 'passed')
    if (found.length === 0) problems.push(`${name}: no test of ${caughtBy.file} is named "${caughtBy.test}"`)
    else if (failed !== undefined) problems.push(`${name}: "${failed.name}" fails without it`)
  }
  return problems.length > 0 && tests.length === 0 ? [...problems, output] : problems
}

async function attempt(m: Mutant, dir: string): Promise<Verdict> {
  const began = performance.now()
  const file = join(dir, m.file)
  const source = readFileSync(file, 'utf8')
  writeFileSync(
    file,
    source.replace(m.find, () => m.replace),
  )
  try {
    const { tests, output } = await vitest(dir, m.caughtBy.project, [m.caughtBy.file], m.caughtBy.test)
    const ran = named(tests, m.caughtBy)
    const failed = ran.filter((t) => t.status === 'failed')
    const detail =
      failed[0]?.name ??
      (ran.length === 0
        ? `no test ran: ${output.trim().slice(-400)}`
        : `it survived: ${ran.length} test(s) passed`)
    return { mutant: m, caught: failed.length > 0, detail, ms: performance.now() - began }
  } finally {
    writeFileSync(file, source)
  }
}

const row = ({ mutant, caught, detail, ms }: Verdict): string =>
  `${caught ? 'caught ' : 'MISSED '} ${mutant.name.padEnd(40)} ${(ms / 1000).toFixed(1).padStart(6)} s  ${mutant.caughtBy.file}: ${detail}\n`

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { only: { type: 'string', multiple: true } } })
  const mutants = MUTANTS.filter((m) => values.only === undefined || values.only.includes(m.name))
  if (mutants.length === 0) throw new Error('no mutant has that name')
  const began = performance.now()
  const copies = Array.from({ length: Math.min(AT_ONCE, mutants.length) }, openCopy)
  const verdicts: Verdict[] = []
  try {
    const problems = await checkList(mutants, copies[0]?.dir ?? '')
    if (problems.length > 0) {
      process.stderr.write(`${problems.join('\n')}\n`)
      process.stdout.write(`mutants: none tried, because ${problems.length} of the list are not right\n`)
      return 1
    }
    const queue = [...mutants]
    const work = async (dir: string): Promise<void> => {
      for (let m = queue.shift(); m !== undefined; m = queue.shift()) {
        const verdict = await attempt(m, dir)
        verdicts.push(verdict)
        process.stdout.write(row(verdict))
      }
    }
    await Promise.all(copies.map(({ dir }) => work(dir)))
  } finally {
    for (const { close } of copies) close()
  }
  const missed = verdicts.filter((v) => !v.caught)
  for (const { mutant, detail } of missed)
    process.stderr.write(`${mutant.name}: ${mutant.breaks} ${detail}\n`)
  const seconds = ((performance.now() - began) / 1000).toFixed(0)
  process.stdout.write(
    `mutants: ${verdicts.length - missed.length} of ${mutants.length} caught, in ${seconds} s\n`,
  )
  return missed.length === 0 ? 0 : 1
}

process.exit(await main())
