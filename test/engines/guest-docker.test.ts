import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Engine } from '../../src/engines/engine.ts'
import { createGuest, reapStale } from '../../src/guest/index.ts'
import { systemClock, systemIds } from '../../src/server/system.ts'
import { dockerEngine, dockerAbsent, DOCKER_SOCKET } from '../support/docker-subject.ts'
import { rawDocker } from '../support/docker-http.ts'
import { finish, guestSuite, run, runs, start, type GuestRig } from '../support/guest-suite.ts'
import { ensureTestImage, TEST_USER } from '../support/image.ts'
import { describeOn } from './describe-on.ts'

const BYTES = 300 * 1024 * 1024 - ((300 * 1024 * 1024) % 65536)
const LABEL = 'holdfast.dev/guest-test'
const ok = { code: 0, timedOut: false, lost: null }

interface Instance {
  readonly rig: GuestRig
  readonly remove: () => Promise<void>
}

async function startInstance(engine: Engine, hostConfig: object, more: object = {}): Promise<Instance> {
  const image = await ensureTestImage(DOCKER_SOCKET)
  const json = {
    Image: image,
    Labels: { [LABEL]: String(process.pid) },
    HostConfig: { Init: true, PidsLimit: 512, ...hostConfig },
    ...more,
  }
  const made = await docker('POST', '/containers/create', json)
  const { Id } = JSON.parse(made) as { Id: string }
  const remove = async (): Promise<void> =>
    void (await docker('DELETE', `/containers/${Id}?force=true&v=true`))
  try {
    await docker('POST', `/containers/${Id}/start`)
    return { rig: newRig(engine, Id, 1), remove }
  } catch (error) {
    await remove()
    throw error
  }
}

function newRig(engine: Engine, engineId: string, epoch: number): GuestRig {
  const guest = createGuest({ clock: systemClock(), ids: systemIds(), epoch })
  return { guest, target: { engine, sandbox: 'sandbox', engineId, startedAt: 1 } }
}

async function docker(method: string, path: string, json?: object): Promise<string> {
  const { status, text } = await rawDocker(DOCKER_SOCKET, method, path, json)
  if (status >= 300) throw new Error(`Docker answered ${status} to ${method} ${path}: ${text}`)
  return text
}

describeOn('docker', await dockerAbsent())('the guest on Docker', () => {
  describe.each([
    ['an ordinary container', {}, BYTES],
    [
      'a read-only root without capabilities',
      { ReadonlyRootfs: true, CapDrop: ['ALL'], SecurityOpt: ['no-new-privileges'], Tmpfs: { '/tmp': '' } },
      8 * 1024 * 1024,
    ],
  ] as const)('lanes on Docker: %s', (_name, hostConfig, bytes) => {
    const engine = dockerEngine(`unix://${DOCKER_SOCKET}`)
    let instance: Instance
    beforeAll(async () => {
      instance = await startInstance(engine, hostConfig)
    })
    afterAll(async () => {
      await instance.rig.guest.close()
      await instance.remove()
      await engine.close()
    })
    guestSuite(() => instance.rig, bytes)

    it('runs a command as another user, on lanes of that user', async () => {
      const user = String(TEST_USER)
      const script = 'id -u'
      for (let i = 0; i < 3; i++)
        expect((await run(instance.rig, { command: { script }, user })).stdout).toBe(`${user}\n`)
      expect((await run(instance.rig, 'id -u')).stdout).toBe('0\n')
      const command = await start(instance.rig, { command: ['sleep', '300'], user })
      await command.cancel()
      expect((await finish(command)).exit).toEqual({ ...ok, code: 130 })
    })

    it('gives a terminal, resizes it and ends what runs on it', async () => {
      const tty = { columns: 91, rows: 33 }
      // Engines before API 1.42 set the size only once the program runs.
      const size = { script: 'until s=$(stty size 2>/dev/null) && [ "$s" ]; do sleep 0.1; done; echo "$s"' }
      expect((await run(instance.rig, { command: size, tty })).stdout).toContain('33 91\r\n')
      const shell = await start(instance.rig, { command: ['sh'], stdin: 'stream', tty })
      const all = finish(shell)
      await shell.resize(70, 20)
      await shell.write(Buffer.from('stty size; exit 7\n'))
      expect(await all).toMatchObject({
        stdout: expect.stringContaining('20 70') as string,
        exit: { code: 7 },
      })
      const stuck = await start(instance.rig, { command: ['sleep', '300'], stdin: 'stream', tty })
      await stuck.cancel()
      expect((await finish(stuck)).exit.code).toBeGreaterThan(128)
    })

    it(
      'ends foreground commands of an older epoch, of every user, and keeps background ones',
      { timeout: 60_000 },
      async () => {
        const { target } = instance.rig
        const old = newRig(engine, target.engineId, 1)
        const kept = (await run(old, 'sleep 300 >/dev/null 2>&1 & echo $!')).stdout.trim()
        const pids: string[] = []
        for (const user of ['0', String(TEST_USER)]) {
          const command = await start(old, { command: { script: 'echo $$; sleep 300; echo on' }, user })
          command.stderr.resume()
          pids.push(
            await new Promise<string>((resolve) =>
              command.stdout.once('data', (data: Buffer) => resolve(data.toString().trim())),
            ),
          )
        }
        const terminal = await start(old, {
          command: ['sh', '-c', 'echo $$; exec sleep 300'],
          stdin: 'stream',
          tty: { columns: 80, rows: 24 },
        })
        pids.push(
          await new Promise<string>((resolve) =>
            terminal.stdout.once('data', (data: Buffer) => resolve(data.toString().trim())),
          ),
        )
        await old.guest.close()

        const next = newRig(engine, target.engineId, 2)
        const mine = await start(next, { command: ['sleep', '300'] })
        for (const pid of pids) expect(await runs(next, pid)).toBe(true)
        expect(await reapStale(systemClock(), target, 2)).toEqual({ ended: 3 })
        for (const pid of pids) expect(await runs(next, pid)).toBe(false)
        expect(await runs(next, kept)).toBe(true)
        await mine.kill('TERM')
        expect((await finish(mine)).exit.code).toBe(143)
        await run(next, `kill -KILL ${kept}`)
        await next.guest.close()
      },
    )
  })

  describe('an instance on Docker without a shell', () => {
    it('runs argument lists, and says that scripts need a shell', async () => {
      const engine = dockerEngine(`unix://${DOCKER_SOCKET}`)
      const { rig, remove } = await startInstance(
        engine,
        {},
        { Entrypoint: ['/bin/tail', '-f', '/dev/null'], Env: ['PATH=/none'] },
      )
      try {
        expect((await run(rig, { command: ['/bin/echo', 'x'] })).stdout).toBe('x\n')
        await expect(run(rig, 'echo x')).rejects.toMatchObject({ code: 'EXEC_NO_SHELL' })
      } finally {
        await rig.guest.close()
        await remove()
        await engine.close()
      }
    })
  })

  describe('an instance on Docker that goes away', () => {
    it('says that the status is not known when it is killed in the middle of a command', async () => {
      const engine = dockerEngine(`unix://${DOCKER_SOCKET}`)
      const { rig, remove } = await startInstance(engine, {})
      try {
        const command = await start(rig, { command: { script: 'echo begun; sleep 300' } })
        const all = finish(command)
        await docker('POST', `/containers/${rig.target.engineId}/kill`)
        expect(await all).toMatchObject({ stdout: 'begun\n', exit: { code: null, timedOut: false } })
        expect((await all).exit.lost).toMatch(/shell ended|connection/)
        await expect(run(rig, 'echo x')).rejects.toThrow()
        await docker('POST', `/containers/${rig.target.engineId}/start`)
        const again = { ...rig, target: { ...rig.target, startedAt: 2 } }
        expect((await run(again, 'echo back')).stdout).toBe('back\n')
      } finally {
        await rig.guest.close()
        await remove()
        await engine.close()
      }
    })
  })
})
