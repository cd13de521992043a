import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { chown, mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { describeOn } from './describe-on.ts'
import { requires } from './required.ts'

const run = promisify(execFile)
/** `nobody`, who owns nothing here. */
const USER = 65534
const repository = join(import.meta.dirname, '../..')

/** A reason why another user cannot read this checkout, or null. */
async function closed(): Promise<string | null> {
  for (let dir = repository; ; dir = dirname(dir)) {
    if (((await stat(dir)).mode & constants.S_IXOTH) === 0) return `${dir} is closed to other users`
    if (dir === '/') return null
  }
}

// An ordinary user's own run of the suites is this very thing.
const fromRoot = process.getuid?.() === 0 ? describeOn('local', await closed()) : describe.skip

fromRoot('local, from root', () => {
  test('the suites of the local engine pass as an ordinary user', { timeout: 400_000 }, async () => {
    const home = await mkdtemp(join(tmpdir(), 'holdfast-user-'))
    try {
      await chown(home, USER, USER)
      const vitest = join(repository, 'node_modules/vitest/vitest.mjs')
      const suites = ['local.test.ts', 'local-driver.test.ts'].map((name) => join('test/engines', name))
      const args = [
        vitest,
        'run',
        '--configLoader',
        'native',
        '--project',
        'engines',
        '--reporter',
        'json',
        '--outputFile',
        join(home, 'report.json'),
        ...suites,
      ]
      const done = await run(process.execPath, args, {
        cwd: repository,
        uid: USER,
        gid: USER,
        env: {
          PATH: process.env['PATH'],
          HOME: home,
          TMPDIR: home,
          HOLDFAST_REQUIRE_ENGINES: requires('local') ? 'local' : '',
        },
        timeout: 380_000,
        maxBuffer: 64 * 1024 * 1024,
      }).catch((error: unknown) => error as { stdout: string; stderr: string })
      const report = await readFile(join(home, 'report.json'), 'utf8').catch(() => `{}`)
      const { numFailedTests, numPassedTests, numPendingTests, testResults } = JSON.parse(report) as {
        numFailedTests?: number
        numPassedTests?: number
        numPendingTests?: number
        testResults?: {
          assertionResults: { status: string; fullName: string; failureMessages: string[] }[]
        }[]
      }
      const failed = (testResults ?? [])
        .flatMap((r) => r.assertionResults)
        .filter((a) => a.status === 'failed')
      expect(
        failed.map((f) => `${f.fullName}: ${f.failureMessages.join('\n')}`),
        done.stderr,
      ).toEqual([])
      expect(numFailedTests, done.stderr).toBe(0)
      expect(numPassedTests).toBeGreaterThan(100)
      if (requires('local')) expect(numPendingTests).toBe(0)
    } finally {
      await rm(home, { recursive: true, force: true })
    }
  })
})
