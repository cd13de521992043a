import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { logDestination } from './log.ts'

test.runIf(process.platform === 'linux')('a log that nothing can be written to ends nothing', async () => {
  const fd = openSync('/dev/full', 'w')
  expect(() => writeSync(fd, 'x')).toThrow(/ENOSPC/)
  const log = pino({ base: null }, logDestination(fd))
  for (let i = 0; i < 2_000; i++) log.info({ i }, 'x'.repeat(500))
  await new Promise((done) => setImmediate(done))
  closeSync(fd)
})

test('with room again, the log goes on with the lines that waited', (context) => {
  const dir = mkdtempSync(join(tmpdir(), 'hf-log-'))
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'holdfast-test', dir])
  try {
    if (mounted.status !== 0) return context.skip('no tmpfs can be mounted here')
    const ballast = join(dir, 'ballast')
    const full = openSync(ballast, 'w')
    expect(() => {
      for (;;) writeSync(full, Buffer.alloc(4_096))
    }).toThrow(/ENOSPC/)
    closeSync(full)
    const path = join(dir, 'log')
    const fd = openSync(path, 'a')
    const log = pino({ base: null }, logDestination(fd))
    log.info('first')
    rmSync(ballast)
    log.info('second')
    closeSync(fd)
    expect(
      readFileSync(path, 'utf8')
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as { msg: string }).msg),
    ).toEqual(['first', 'second'])
  } finally {
    if (mounted.status === 0) spawnSync('umount', ['-l', dir])
    rmSync(dir, { recursive: true, force: true })
  }
})
