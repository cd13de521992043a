import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { expect, test } from 'vitest'
import { claimInstallation } from './claim.ts'

const own = (): string => `test-${process.pid}-${Math.random().toString(36).slice(2)}`

test.runIf(process.platform === 'linux')(
  'an installation has one holder, which is named; released, it is free',
  async () => {
    const installation = own()
    const claim = await claimInstallation(installation, '/first')
    await expect(claimInstallation(installation, '/copy')).rejects.toMatchObject({
      code: 'INSTALLATION_RUNNING',
      exitCode: 4,
      message: expect.stringMatching(new RegExp(`/copy.*process ${process.pid}`)) as string,
    })
    const other = await claimInstallation(own(), '/other')
    other.release()
    claim.release()
    const next = await claimInstallation(installation, '/copy')
    next.release()
  },
)

test.runIf(process.platform === 'linux')(
  'a process that is only stopped holds it still; one that was killed does not',
  async () => {
    const installation = own()
    const code = `import { claimInstallation } from ${JSON.stringify(new URL('claim.ts', import.meta.url).href)}
await claimInstallation(${JSON.stringify(installation)}, '/first'); console.log('held'); setInterval(() => {}, 60_000)`
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', code], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      await once(child.stdout, 'data')
      child.kill('SIGSTOP')
      await expect(claimInstallation(installation, '/copy')).rejects.toThrow(`process ${child.pid}`)
    } finally {
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
    }
    const claim = await claimInstallation(installation, '/copy')
    claim.release()
  },
)
