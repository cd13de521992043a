import { readFile } from 'node:fs/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { createGuest, reapStale, type GuestOptions } from '../../src/guest/index.ts'
import { systemClock, systemIds } from '../../src/server/system.ts'
import { finish, run, runs, start, until, type GuestRig } from '../support/guest-suite.ts'
import { createShellExec, type ShellExec, type ShellExecOptions } from '../support/shell-exec.ts'

const ok = { code: 0, timedOut: false, lost: null }
const closers: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close()
})

interface Rig extends GuestRig {
  readonly exec: ShellExec
}

async function open(guest: Partial<GuestOptions> = {}, shell: Partial<ShellExecOptions> = {}): Promise<Rig> {
  const exec = await createShellExec({ shell: '/bin/sh', ...shell })
  closers.push(exec.close)
  return on(exec, guest)
}

/** One more control plane on the same instance. */
function on(exec: ShellExec, options: Partial<GuestOptions> = {}): Rig {
  const guest = createGuest({ clock: systemClock(), ids: systemIds(), epoch: 1, ...options })
  closers.push(() => guest.close())
  return {
    guest,
    exec,
    target: { engine: exec.engine, sandbox: 'sandbox', engineId: 'instance', startedAt: 1 },
  }
}

const sleeping = (rig: GuestRig, n: number): Promise<Awaited<ReturnType<typeof start>>[]> =>
  Promise.all(Array.from({ length: n }, () => start(rig, { command: ['sleep', '300'] })))

describe('the pool of lanes', () => {
  it('serves commands one after the other on few lanes', async () => {
    const rig = await open()
    for (let i = 0; i < 30; i++) expect((await run(rig, `echo ${i}`)).stdout).toBe(`${i}\n`)
    // An answer comes before its lane is free again, so the next command may take another one.
    expect(rig.exec.started()).toBeLessThanOrEqual(5)
  })

  it('opens the first lane ahead of use', async () => {
    const rig = await open()
    rig.guest.warm(rig.target)
    await until('a lane is open', () => Promise.resolve(rig.exec.started() === 1))
    expect((await run(rig, 'echo x')).stdout).toBe('x\n')
    expect(rig.exec.started()).toBe(1)
  })

  it('keeps few idle lanes after a burst, and none after the idle time', async () => {
    const rig = await open({ limits: { maxIdle: 2, idleMs: 300 } })
    const all = await sleeping(rig, 6)
    for (const one of all) await one.kill('KILL')
    await Promise.all(all.map(finish))
    await until('no lane is left', () => Promise.resolve(rig.exec.running() === 0))
    expect((await run(rig, 'echo again')).stdout).toBe('again\n')
  })

  it('runs more commands than there may be lanes, and signals them', async () => {
    const rig = await open({ limits: { maxLanes: 3 } })
    const all = await sleeping(rig, 6)
    await all[5]?.cancel()
    for (const one of all) await one.kill('TERM')
    const codes = (await Promise.all(all.map(finish))).map((one) => one.exit.code)
    expect(codes.slice(0, 5)).toEqual([143, 143, 143, 143, 143])
    expect(codes[5]).toBe(130)
    expect(rig.exec.started()).toBeGreaterThan(3)
  })

  it('says why when an instance dies in the middle, and opens new lanes afterwards', async () => {
    const rig = await open()
    const command = await start(rig, { command: { script: 'echo begun; sleep 300' } })
    rig.exec.breakAll()
    const { exit } = await finish(command)
    expect(exit.code).toBeNull()
    expect(exit.lost).toMatch(/shell ended|connection/)
    expect((await run(rig, 'echo back')).stdout).toBe('back\n')
  })

  it('a connection that breaks before a shell answers is the engine away, and nothing was run', async () => {
    const rig = await open()
    const { engine } = rig.exec
    const cut: typeof engine = {
      ...engine,
      async exec(...call) {
        const stream = await engine.exec(...call)
        stream.destroy()
        return { ...stream, write: () => Promise.reject(new Error('cut')), exit: Promise.resolve(null) }
      },
    }
    const target = { ...rig.target, engine: cut }
    await expect(
      rig.guest.run(target, { command: ['true'], stdin: 'none', timeoutMs: null }),
    ).rejects.toMatchObject({ kind: 'unreachable', effect: 'none' })
  })

  it('never uses a lane of an earlier start', async () => {
    const rig = await open()
    const first = (await run(rig, 'echo $PPID')).stdout
    const later = { ...rig, target: { ...rig.target, startedAt: 2 } }
    expect((await run(later, 'echo $PPID')).stdout).not.toBe(first)
    await until('the old lane ended', () => Promise.resolve(rig.exec.running() === 1))
  })

  it('ends every lane when the instance is to be stopped', async () => {
    const rig = await open()
    await run(rig, ':')
    const command = await start(rig, { command: ['sleep', '2'] })
    rig.guest.forget('instance')
    expect((await finish(command)).exit.lost).toContain('being stopped')
    await until('the lanes ended', () => Promise.resolve(rig.exec.running() === 0))
  })

  it('refuses new commands once closed', async () => {
    const rig = await open()
    await run(rig, ':')
    await rig.guest.close()
    await expect(run(rig, ':')).rejects.toMatchObject({ code: 'SERVICE_UNAVAILABLE' })
    await until('the lanes ended', () => Promise.resolve(rig.exec.running() === 0))
  })

  it('reuses a held lane once its holders are gone', async () => {
    const rig = await open({ limits: { probeMs: 50, maxIdle: 60 } })
    const { stdout } = await run(rig, 'echo $PPID; (sleep 1; echo late) &')
    // The lane used last is taken first. One command more each time takes every lane there is, and so the freed one.
    let commands = 0
    await until('the lane is used again', async () => {
      commands = Math.min(commands + 1, 50)
      const all = await Promise.all(Array.from({ length: commands }, () => run(rig, 'echo $PPID; sleep 0.1')))
      return all.some((done) => done.stdout === stdout)
    })
  })
})

describe('images that lack something', () => {
  it('runs argument lists without sh, and says that scripts need it', async () => {
    const rig = await open({}, { programs: ['env', 'cat'] })
    expect(await run(rig, { command: ['env'], env: { A: 'b' } })).toMatchObject({
      stdout: expect.stringContaining('A=b\n') as string,
      exit: ok,
    })
    expect((await run(rig, { command: ['cat'], stdin: Buffer.from('in') })).stdout).toBe('in')
    await expect(run(rig, 'echo x')).rejects.toMatchObject({ code: 'EXEC_NO_SHELL' })
    const command = await start(rig, { command: ['cat'], stdin: 'stream' })
    await expect(command.kill('TERM')).rejects.toMatchObject({ code: 'EXEC_NO_SHELL' })
    command.end()
    expect((await finish(command)).exit).toEqual(ok)
  })

  it('signals and cancels without setsid, where KILL takes the lane along', { timeout: 60_000 }, async () => {
    const rig = await open({}, { programs: ['sh', 'sleep', 'cat', 'dd', 'tr'] })
    const polite = await start(rig, { command: ['sleep', '300'] })
    await polite.cancel()
    expect((await finish(polite)).exit).toEqual({ ...ok, code: 130 })
    const stubborn = await start(rig, {
      command: { script: 'trap "" INT TERM; sleep 300 & echo $!; sleep 301' },
    })
    stubborn.stderr.resume()
    const pid = await new Promise<string>((resolve) =>
      stubborn.stdout.once('data', (data: Buffer) => resolve(data.toString().trim())),
    )
    await stubborn.cancel()
    expect(await stubborn.exit).toEqual({ ...ok, code: 137 })
    expect(await runs(rig, pid)).toBe(false)
    expect((await run(rig, 'echo next')).stdout).toBe('next\n')
  })
})

describe('after the control plane died', () => {
  it('idle lanes end by themselves', async () => {
    const rig = await open()
    await run(rig, ':')
    rig.exec.disconnectAll()
    await until('the lanes ended', () => Promise.resolve(rig.exec.running() === 0))
  })

  it('ends foreground commands of an older epoch, and only those', { timeout: 60_000 }, async () => {
    const rig = await open()
    const kept = (await run(rig, 'sleep 300 >/dev/null 2>&1 & echo $!')).stdout.trim()
    const holder = (await run(rig, 'sleep 299 & echo $!')).stdout.trim()
    const front = await start(rig, { command: { script: 'sleep 298 & echo $!; sleep 297' } })
    front.stderr.resume()
    const child = await new Promise<string>((resolve) =>
      front.stdout.once('data', (data: Buffer) => resolve(data.toString().trim())),
    )
    rig.exec.disconnectAll()

    const next = on(rig.exec, { epoch: 2 })
    const mine = await start(next, { command: ['sleep', '300'] })
    expect(await runs(next, child)).toBe(true)
    // Another sandbox's marks, as of a control plane that runs inside this one, are none of our business.
    expect(await reapStale(systemClock(), { ...next.target, sandbox: 'other' }, 2)).toEqual({ ended: 0 })
    expect(await reapStale(systemClock(), next.target, 1)).toEqual({ ended: 0 })
    expect(await reapStale(systemClock(), next.target, 2)).toEqual({ ended: 1 })
    expect(await runs(next, child)).toBe(false)
    for (const pid of [kept, holder]) expect(await runs(next, pid)).toBe(true)
    expect(await reapStale(systemClock(), next.target, 2)).toEqual({ ended: 0 })
    await mine.kill('TERM')
    expect((await finish(mine)).exit.code).toBe(143)
  })

  it('leaves no mark of its own in the environment of commands', async () => {
    const rig = await open()
    const { stdout } = await run(rig, 'echo $PPID; cat /proc/self/environ')
    expect(stdout).not.toContain('HOLDFAST')
    const lane = stdout.split('\n')[0] as string
    expect(await readFile(`/proc/${lane}/environ`, 'latin1')).toContain('HOLDFAST_LANE=:sandbox:1:')
  })
})
