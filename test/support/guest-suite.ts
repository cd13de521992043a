import { createHash } from 'node:crypto'
import { once } from 'node:events'
import type { Readable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import type {
  CommandExit,
  CommandRequest,
  Guest,
  GuestTarget,
  RunningCommand,
} from '../../src/guest/guest.ts'

/** What the suite runs on: a guest and one instance. */
export interface GuestRig {
  readonly guest: Guest
  readonly target: GuestTarget
}

export interface Finished {
  readonly stdout: string
  readonly stderr: string
  readonly exit: CommandExit
}

export type Ask = Partial<CommandRequest> & Pick<CommandRequest, 'command'>

export function start(rig: GuestRig, ask: Ask): Promise<RunningCommand> {
  return rig.guest.run(rig.target, { stdin: 'none', timeoutMs: null, ...ask })
}

export async function bytesOf(stream: Readable): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of stream) parts.push(part as Buffer)
  return Buffer.concat(parts)
}

export async function finish(command: RunningCommand): Promise<Finished> {
  const [stdout, stderr, exit] = await Promise.all([
    bytesOf(command.stdout),
    bytesOf(command.stderr),
    command.exit,
  ])
  return { stdout: stdout.toString(), stderr: stderr.toString(), exit }
}

export async function run(rig: GuestRig, ask: Ask | string): Promise<Finished> {
  return finish(await start(rig, typeof ask === 'string' ? { command: { script: ask } } : ask))
}

/** Looks until it is so; the limit is a guard against hanging, not a measurement. */
export async function until(what: string, fn: () => Promise<boolean>, limitMs = 15_000): Promise<void> {
  const end = performance.now() + limitMs
  while (!(await fn())) {
    if (performance.now() > end) throw new Error(`${what}: not so after ${limitMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** True while a process of this number runs in the instance; a zombie does not. */
export async function runs(rig: GuestRig, pid: string): Promise<boolean> {
  const { stdout } = await run(
    rig,
    `read -r l 2>/dev/null </proc/${pid}/stat && l=\${l##*) } && echo "\${l%% *}"`,
  )
  return stdout !== '' && stdout.trim() !== 'Z'
}

const ok = { code: 0, timedOut: false, lost: null }
const SIZE_SCRIPT = (bytes: number): string =>
  `dd if=/dev/zero bs=65536 count=${bytes / 65536} 2>/dev/null | tr '\\0' '\\377'`

/** The properties of commands in lanes, each by its name. `bytes` is the size of the large outputs and inputs. */
export function guestSuite(rig: () => GuestRig, bytes: number): void {
  it('keeps the streams apart and tells the status', async () => {
    expect(await run(rig(), 'echo out; echo err >&2; exit 7')).toEqual({
      stdout: 'out\n',
      stderr: 'err\n',
      exit: { ...ok, code: 7 },
    })
  })

  it('hands on output without a last newline, with NULs, and none at all', async () => {
    expect((await run(rig(), "printf 'a\\000b'")).stdout).toBe('a\0b')
    expect((await run(rig(), "printf 'x' >&2")).stderr).toBe('x')
    expect(await run(rig(), ':')).toEqual({ stdout: '', stderr: '', exit: ok })
  })

  it('hands on every byte value', async () => {
    const all = Array.from({ length: 256 }, (_, i) => `\\${i.toString(8).padStart(3, '0')}`).join('')
    const command = await start(rig(), { command: { script: `printf '${all}'; printf '${all}' >&2` } })
    const [out, err] = await Promise.all([bytesOf(command.stdout), bytesOf(command.stderr)])
    expect(out).toEqual(Buffer.from(Array.from({ length: 256 }, (_, i) => i)))
    expect(err).toEqual(out)
  })

  it('is not misled by output that looks like a marker', async () => {
    const lines = ['TAG 0', 'free', 'busy', 'a'.repeat(32) + ' 0', `${'b'.repeat(32)} free`, '123'].join('\n')
    expect((await run(rig(), { command: ['printf', '%s', lines] })).stdout).toBe(lines)
  })

  it('streams a large binary output in bounded memory', { timeout: 120_000 }, async () => {
    const command = await start(rig(), { command: { script: SIZE_SCRIPT(bytes) } })
    const hash = createHash('sha256')
    let got = 0
    let most = 0
    const before = process.memoryUsage().arrayBuffers
    command.stderr.resume()
    for await (const part of command.stdout) {
      hash.update(part as Buffer)
      got += (part as Buffer).length
      most = Math.max(most, process.memoryUsage().arrayBuffers - before)
    }
    expect(got).toBe(bytes)
    const expected = createHash('sha256')
    for (let i = 0; i < bytes; i += 65536) expected.update(Buffer.alloc(65536, 255))
    expect(hash.digest('hex')).toBe(expected.digest('hex'))
    expect(await command.exit).toEqual(ok)
    if (bytes > 200_000_000) expect(most).toBeLessThan(bytes / 3)
  })

  it('blocks a command that nobody reads, and lets it go on when somebody does', async () => {
    const command = await start(rig(), {
      command: { script: `${SIZE_SCRIPT(8 * 1024 * 1024)}; echo done >&2` },
    })
    let done = false
    command.stderr.on('data', () => (done = true))
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(done).toBe(false)
    expect((await bytesOf(command.stdout)).length).toBe(8 * 1024 * 1024)
    expect(await command.exit).toEqual(ok)
    expect(done).toBe(true)
  })

  it('lets a full stderr be read after stdout as long as it fits the buffer', async () => {
    const command = await start(rig(), { command: { script: "printf '%0100000d' 0 >&2; echo out" } })
    expect((await bytesOf(command.stdout)).toString()).toBe('out\n')
    expect((await bytesOf(command.stderr)).length).toBe(100_000)
    expect(await command.exit).toEqual(ok)
  })

  it('runs 64 commands at once without mixing their output', { timeout: 60_000 }, async () => {
    const all = await Promise.all(
      Array.from({ length: 64 }, (_, i) =>
        run(rig(), `for n in 1 2 3 4 5; do echo ${i}-$n; echo e${i}-$n >&2; done; exit ${i}`),
      ),
    )
    for (const [i, one] of all.entries()) {
      expect(one.stdout).toBe([1, 2, 3, 4, 5].map((n) => `${i}-${n}\n`).join(''))
      expect(one.stderr).toBe([1, 2, 3, 4, 5].map((n) => `e${i}-${n}\n`).join(''))
      expect(one.exit.code).toBe(i)
    }
  })

  it('passes an argument list exactly as it is', async () => {
    const args = [
      '',
      ' ',
      '$HOME',
      '`id`',
      '*',
      '"',
      "'",
      '\\',
      '\n',
      '-n',
      '--',
      'ü😀',
      'a;b&c|d',
      '!!',
      '~',
      '\t\r',
    ]
    const { stdout } = await run(rig(), { command: ['printf', '<%s>', ...args] })
    expect(stdout).toBe(args.map((a) => `<${a}>`).join(''))
  })

  it('says 127 for a missing program and 126 for one that cannot be executed', async () => {
    const missing = await run(rig(), { command: ['no-such-program', 'x'] })
    expect(missing.exit.code).toBe(127)
    expect(missing.stderr).toContain('no-such-program')
    const refused = await run(rig(), { command: ['/proc/version'] })
    expect(refused.exit.code).toBe(126)
    expect(refused.stderr).toContain('/proc/version')
  })

  it('tells every exit status from 0 to 255', { timeout: 60_000 }, async () => {
    const codes: (number | null)[] = []
    for (let i = 0; i < 256; i++) codes.push((await run(rig(), `exit ${i}`)).exit.code)
    expect(codes).toEqual(Array.from({ length: 256 }, (_, i) => i))
  })

  it.each([
    ['INT', 130],
    ['KILL', 137],
    ['TERM', 143],
    ['HUP', 129],
    ['QUIT', 131],
    ['USR1', 138],
    ['USR2', 140],
  ] as const)(
    'tells death by %s as %i: the lane gives its commands default signals',
    async (signal, code) => {
      const command = await start(rig(), { command: ['sleep', '300'] })
      await command.kill(signal)
      expect((await finish(command)).exit).toEqual({ ...ok, code })
      expect((await run(rig(), `kill -${signal} $$; exec sleep 0`)).exit.lost).toBeNull()
    },
  )

  it('lets a broken pipe end a command, as a terminal would', async () => {
    expect((await run(rig(), 'kill -PIPE $$; sleep 5')).exit.code).toBe(141)
  })

  it('lets scripts exit, replace themselves, and trap their own end', async () => {
    expect(await run(rig(), 'trap "echo bye" EXIT; exit 3')).toMatchObject({
      stdout: 'bye\n',
      exit: { code: 3 },
    })
    expect(await run(rig(), "exec sh -c 'echo new; exit 4'")).toMatchObject({
      stdout: 'new\n',
      exit: { code: 4 },
    })
    expect(await run(rig(), 'trap "echo term; exit 9" TERM; kill -TERM $$; sleep 1')).toMatchObject({
      stdout: 'term\n',
      exit: { code: 9 },
    })
    expect((await run(rig(), 'if')).exit.code).not.toBe(0)
    expect(await run(rig(), 'exec >/dev/null 2>&1; echo x; exit 5')).toMatchObject({
      stdout: '',
      exit: { code: 5 },
    })
    expect(await run(rig(), 'exec 1>&- 2>&-; exit 6')).toMatchObject({ exit: { code: 6 } })
  })

  it('gives a script no arguments and none of its own variables', async () => {
    expect((await run(rig(), 'echo "$#:$*"; set | grep -c "^__hf"')).stdout).toBe(
      ':0\n0\n'.replace(':0', '0:'),
    )
    expect((await run(rig(), { command: ['env'] })).stdout).not.toMatch(/__hf|HOLDFAST_LANE/)
  })

  it('runs a script of one mebibyte', { timeout: 60_000 }, async () => {
    const head = 'echo start\n'
    const script = `${head}${`: ${'😀'.repeat(20)}\n`.repeat(12_000)}`.slice(0, 1_000_000 / 2) + '\necho end'
    const filler = `\n: '${'x'.repeat(1_048_576 - Buffer.byteLength(script) - 10)}'`
    expect(Buffer.byteLength(script + filler)).toBeGreaterThan(1_048_000)
    expect((await run(rig(), script + filler)).stdout).toBe('start\nend\n')
  })

  it('refuses a larger one, and starts nothing', async () => {
    await expect(start(rig(), { command: { script: 'x'.repeat(1_048_577) } })).rejects.toMatchObject({
      code: 'PAYLOAD_TOO_LARGE',
    })
  })

  it('has a working directory, or says clearly that there is none', async () => {
    expect((await run(rig(), { command: ['pwd'], workingDir: '/tmp' })).stdout).toBe('/tmp\n')
    await expect(start(rig(), { command: ['pwd'], workingDir: '/no such/dir' })).rejects.toMatchObject({
      code: 'EXEC_FAILED',
      message: expect.stringContaining('"/no such/dir" cannot be entered') as string,
    })
    expect((await run(rig(), 'echo still')).stdout).toBe('still\n')
  })

  it('passes an environment with quotes, newlines and any characters, also under names no shell can export', async () => {
    const env = { A: `it's "$HOME" \`id\``, B: 'two\nlines\n', C: 'ü😀', D: '', PATH_: '\\' }
    for (const more of [{}, { 'a.b': 'dot' }, { RANDOM: 'fixed' }]) {
      const all = { ...env, ...more }
      const { stdout } = await run(rig(), { command: ['env'], env: all })
      for (const [name, value] of Object.entries(all)) expect(`\n${stdout}`).toContain(`\n${name}=${value}\n`)
    }
  })

  it('shows neither environment nor marker in an argument list', async () => {
    const secret = 'hunter2-hunter2'
    const script = `cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'`
    const { stdout } = await run(rig(), { command: { script }, env: { SECRET: secret } })
    expect(stdout).toContain('cmdline')
    expect(stdout).not.toContain(secret)
    // A marker is 32 characters of its alphabet, and every process of the lane is in that list.
    expect(stdout).not.toMatch(/^[a-z][a-z0-9]{31}$/m)
  })

  it('gives no input, a small one, a large one and a stream', { timeout: 120_000 }, async () => {
    expect(await run(rig(), 'cat; echo $?')).toMatchObject({ stdout: '0\n' })
    const small = Buffer.from(Array.from({ length: 16_384 }, (_, i) => i % 256))
    const echo = async (input: Uint8Array): Promise<Buffer> =>
      bytesOf((await start(rig(), { command: ['cat'], stdin: input })).stdout)
    expect((await echo(small)).equals(small)).toBe(true)
    expect((await echo(Buffer.from('%s%d\\n'))).toString()).toBe('%s%d\\n')
    expect((await echo(Buffer.alloc(0))).length).toBe(0)
    const large = Buffer.alloc(bytes, 'exit 1\n')
    const counted = await run(rig(), { command: ['wc', '-c'], stdin: large })
    expect(Number(counted.stdout)).toBe(bytes)
    const stream = await start(rig(), {
      command: { script: 'read a; echo "got $a"; cat; echo end' },
      stdin: 'stream',
    })
    await stream.write(Buffer.from('one\n'))
    await stream.write(Buffer.from('two\nexit 3\n'))
    stream.end()
    expect(await finish(stream)).toEqual({ stdout: 'got one\ntwo\nexit 3\nend\n', stderr: '', exit: ok })
  })

  it('never runs left-over input as code', async () => {
    const mark = `/tmp/left-over-${process.pid}`
    const command = await start(rig(), { command: ['head', '-n', '1'], stdin: 'stream' })
    await command.write(Buffer.from(`first\n${`touch ${mark}\n`.repeat(100)}`))
    const done = finish(command)
    await command.exit
    await command.write(Buffer.from(`touch ${mark}\n`))
    command.end()
    expect((await done).stdout).toBe('first\n')
    expect((await run(rig(), `[ -e ${mark} ] && echo ran; rm -f ${mark}`)).stdout).toBe('')
  })

  describe.concurrent('while others run', () => slowSuite(rig))

  it('sends one signal to the group and lets the command answer it', async () => {
    const command = await start(rig(), {
      command: {
        script: 'trap "echo usr; exit 12" USR1; echo ready; while :; do sleep 0.1 || sleep 1; done',
      },
    })
    command.stderr.resume()
    const [ready] = (await once(command.stdout, 'data')) as [Buffer]
    expect(ready.toString()).toBe('ready\n')
    await command.kill('USR1')
    expect((await command.exit).code).toBe(12)
    await command.kill('KILL')
  })

  it('signals and cancels a command whose environment no shell can export', async () => {
    const command = await start(rig(), { command: ['sleep', '300'], env: { 'a.b': 'dot' } })
    await command.cancel()
    expect((await finish(command)).exit).toEqual({ ...ok, code: 130 })
  })
}

/** Those that wait, beside one another: they are about processes that outlive a command, or must not. */
function slowSuite(rig: () => GuestRig): void {
  it('answers while a background child holds the output, and neither reuses nor closes that lane', async () => {
    // Late words of the child would show up in whatever ran on its lane, and closing it would end the child.
    const held = await run(
      rig(),
      'echo $PPID; (i=0; while [ $i -lt 30 ]; do sleep 0.1; i=$((i+1)); echo late; echo late >&2; done) & echo $!',
    )
    expect(held.exit).toEqual(ok)
    const [lane, pid] = held.stdout.split('\n') as [string, string]
    let looked = 0
    for (; await runs(rig(), pid); looked++) {
      // More at once than idle lanes are kept, so that no lane is left out by chance.
      const script = 'echo $PPID; sleep 0.1; echo clean >&2'
      const all = await Promise.all(Array.from({ length: 8 }, () => run(rig(), script)))
      if (!(await runs(rig(), pid))) break
      for (const { stdout, stderr } of all) {
        expect(stdout).toMatch(/^\d+\n$/)
        expect(stderr).toBe('clean\n')
        expect(stdout.trim()).not.toBe(lane)
      }
    }
    expect(looked).toBeGreaterThan(0)
    expect((await run(rig(), 'echo clean')).stdout).toBe('clean\n')
  })

  it('loses only the command whose script kills its lane, and serves the next', async () => {
    const bystander = await start(rig(), { command: { script: 'sleep 2; echo fine' } })
    const done = finish(bystander)
    const lost = await run(rig(), `echo $$ >/tmp/orphan-${process.pid}; kill -KILL $PPID; exec sleep 60`)
    expect(lost.exit.code).toBeNull()
    expect(lost.exit.lost).toMatch(/shell ended|connection/)
    expect((await run(rig(), 'echo next')).stdout).toBe('next\n')
    expect(await done).toMatchObject({ stdout: 'fine\n', exit: ok })
    // Its program may have outlived the lane, and is nobody's any more.
    await run(rig(), `read -r p </tmp/orphan-${process.pid}; kill -KILL $p; rm /tmp/orphan-${process.pid}`)
  })

  it(
    'cancels the whole group, grandchildren included, also where they ignore INT and TERM',
    { timeout: 60_000 },
    async () => {
      for (const trap of ['', 'trap "" INT TERM;']) {
        const command = await start(rig(), {
          command: {
            script: `${trap} sh -c '${trap} sleep 300 & echo $!; sleep 301 & echo $!; wait' & echo $!; echo ready; wait`,
          },
        })
        const pids: string[] = []
        const seen = Promise.withResolvers<void>()
        let text = ''
        command.stdout.on('data', (part: Buffer) => {
          text += part.toString()
          pids.splice(0, pids.length, ...(text.match(/^\d+$/gm) ?? []))
          if (pids.length === 3 && text.includes('ready')) seen.resolve()
        })
        command.stderr.resume()
        await seen.promise
        await command.cancel()
        expect((await command.exit).code).not.toBe(0)
        for (const pid of pids) expect(await runs(rig(), pid)).toBe(false)
      }
    },
  )

  it('cancels a command that nobody reads', { timeout: 60_000 }, async () => {
    const command = await start(rig(), {
      command: { script: 'while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done' },
    })
    await new Promise((resolve) => setTimeout(resolve, 200))
    await command.cancel()
    const { code, lost } = await command.exit
    expect(code !== null && code > 128).toBe(lost === null)
    expect(lost).toBeNull()
  })

  it('ends a command at its time limit and says so', async () => {
    const late = await run(rig(), {
      command: { script: 'echo early; sleep 300 & sleep 301' },
      timeoutMs: 400,
    })
    expect(late).toMatchObject({ stdout: 'early\n', exit: { timedOut: true, lost: null } })
    expect(late.exit.code).toBeGreaterThan(128)
    expect(await run(rig(), { command: ['true'], timeoutMs: 60_000 })).toMatchObject({ exit: ok })
  })
}
