import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import type { ExecRequest, ExecStream } from '../../../src/engines/engine.ts'
import { collect, finish, refused, type Rig, until, within } from './rig.ts'

const MiB = 1024 * 1024
const sha256 = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex')

export function execTests(rig: Rig): void {
  describe('exec', () => {
    streams(rig)
    statuses(rig)
    pressure(rig)
    terminals(rig)
  })
}

const start = (
  rig: Rig,
  id: string,
  command: readonly string[],
  over: Partial<ExecRequest> = {},
): Promise<ExecStream> => rig.engine.exec(id, { command, stdin: false, ...over }, rig.call())

function streams(rig: Rig): void {
  test('stdout and stderr are separate', async () => {
    const { id } = await rig.running()
    const done = await rig.exec(id, rig.commands.say('to out', 'to err'))
    expect(done.code).toBe(0)
    expect(done.stdout.toString()).toBe('to out')
    expect(done.stderr.toString()).toBe('to err')
  })

  test('5 MB of any bytes go in and out unchanged, and a half-close ends the input', async () => {
    const { id } = await rig.running()
    const data = randomBytes(5 * MiB + 3)
    const stream = await start(rig, id, rig.commands.cat, { stdin: true })
    const feed = async (): Promise<void> => {
      for (let at = 0; at < data.length; at += 100_000) await stream.write(data.subarray(at, at + 100_000))
      stream.end()
    }
    const [done] = await Promise.all([finish(stream), feed()])
    expect(done.stdout.length).toBe(data.length)
    expect(sha256(done.stdout)).toBe(sha256(data))
    expect(done.stderr.toString()).toBe('end\n')
    expect(done.code).toBe(0)
  })

  test('input is answered while it stays open', async () => {
    const { id } = await rig.running()
    const stream = await start(rig, id, rig.commands.cat, { stdin: true })
    let got = ''
    stream.stdout.on('data', (chunk: Buffer) => (got += chunk.toString()))
    stream.stderr.resume()
    await stream.write(Buffer.from('ping\n'))
    await until('the echo', () => (got === 'ping\n' ? true : undefined))
    await stream.write(Buffer.from('pong\n'))
    await until('the second echo', () => (got === 'ping\npong\n' ? true : undefined))
    stream.end()
    expect(await within('the exec to end', stream.exit)).toBe(0)
  })

  test('a program without input finds its end at once', async () => {
    const { id } = await rig.running()
    const done = await rig.exec(id, rig.commands.cat)
    expect(done.code).toBe(0)
    expect(done.stdout.length).toBe(0)
  })

  test('environment, working directory and user are those of the exec', async () => {
    const { id } = await rig.running({ env: { HF_VALUE: 'of the instance', HF_OTHER: 'inherited' } })
    const command = rig.commands.show('HF_VALUE')
    const own = await rig.exec(id, command, {
      env: { HF_VALUE: `of 'the' exec $X` },
      workingDir: rig.scratch,
    })
    expect(own.stdout.toString().split('\n').slice(0, 2)).toEqual([`of 'the' exec $X`, rig.scratch])
    const inherited = await rig.exec(id, rig.commands.show('HF_OTHER'))
    expect(inherited.stdout.toString().split('\n')[0]).toBe('inherited')
    const other = start(rig, id, command, { user: '65534' })
    const stream = await other.catch(() => null)
    if (stream === null) return void (await refused(other, 'unsupported', 'none'))
    expect((await finish(stream)).stdout.toString().split('\n')[2]).toBe('65534')
  })

  test('16 at once do not mix', async () => {
    const { id } = await rig.running()
    const wanted = Array.from({ length: 16 }, (_, i) => `${i}:${randomBytes(2_000).toString('hex')}`)
    const done = await Promise.all(wanted.map((text, i) => rig.exec(id, rig.commands.say(text, `${i}`))))
    expect(done.map((d) => d.stdout.toString())).toEqual(wanted)
    expect(done.map((d) => d.stderr.toString())).toEqual(wanted.map((_, i) => `${i}`))
    expect(new Set(done.map((d) => d.code))).toEqual(new Set([0]))
  })
}

function statuses(rig: Rig): void {
  test('exit statuses are told, 128+n for a signal', async () => {
    const { id } = await rig.running()
    for (const code of [0, 1, 3, 126, 255])
      expect((await rig.exec(id, rig.commands.exit(code))).code).toBe(code)
    expect((await rig.exec(id, rig.commands.killSelf)).code).toBe(137)
  })

  test('a program that is not there is an error, or ends with 126 or 127 where the engine has no other way', async () => {
    const { id } = await rig.running()
    const starting = start(rig, id, rig.commands.missing)
    const stream = await starting.catch(() => null)
    if (stream === null) return void (await refused(starting, ['invalid', 'not-found', 'failed']))
    expect([126, 127]).toContain((await finish(stream)).code)
  })

  test('an instance that does not run refuses', async () => {
    const { id } = await rig.create()
    await refused(start(rig, id, rig.commands.exit(0)), 'conflict', 'none')
    const ended = await rig.running({ entrypoint: rig.commands.exit(0) })
    await rig.ended(ended.id)
    await refused(start(rig, ended.id, rig.commands.exit(0)), 'conflict', 'none')
  })

  test('an exec whose instance is stopped ends', async () => {
    const { id } = await rig.running()
    const stream = await start(rig, id, rig.commands.ignoreTerm)
    const done = finish(stream)
    await rig.engine.stopInstance(id, 1_000, rig.call())
    expect([null, 137]).toContain((await done).code)
  })

  test('after destroy both streams close and the exit is settled', async () => {
    const { id } = await rig.running()
    const stream = await start(rig, id, rig.commands.ticks, { stdin: true })
    const closed = [stream.stdout, stream.stderr].map(
      (s) =>
        new Promise<void>((resolve) => {
          s.on('error', () => undefined)
          s.once('close', () => resolve())
        }),
    )
    stream.destroy()
    stream.destroy(new Error('twice'))
    await within('the streams to close', Promise.all(closed))
    expect([null, 0, 129, 137, 141, 143]).toContain(await within('the exit', stream.exit))
    expect((await rig.facts(id)).state).toBe('running')
  })
}

function pressure(rig: Rig): void {
  test('an unread stream blocks its writer, in bounded memory, and loses nothing', async () => {
    const { id } = await rig.running()
    const stream = await start(rig, id, rig.commands.flood(64 * MiB))
    let ended = false
    void stream.exit.then(() => (ended = true))
    const before = process.memoryUsage()
    // Nothing announces that a writer is blocked: give it the time in which an unbounded driver takes it all.
    await delay(1_000)
    const after = process.memoryUsage()
    const grown = after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers
    expect(grown).toBeLessThan(16 * MiB)
    expect(ended).toBe(false)
    let bytes = 0
    stream.stdout.on('data', (chunk: Buffer) => (bytes += chunk.length))
    stream.stderr.resume()
    expect(await within('the writer to end', stream.exit)).toBe(0)
    expect(bytes).toBe(64 * MiB)
  })

  test('input that nobody reads blocks its writer, in bounded memory', async () => {
    const { id } = await rig.running()
    const stream = await start(rig, id, rig.commands.ignoreTerm, { stdin: true })
    stream.stdout.resume()
    stream.stderr.resume()
    let taken = 0
    const feed = async (): Promise<void> => {
      for (; taken < 64 * MiB; taken += MiB) await stream.write(Buffer.alloc(MiB))
    }
    const feeding = feed().catch(() => 'the connection was dropped')
    await delay(1_000)
    expect(taken).toBeLessThan(16 * MiB)
    stream.destroy()
    await within('the blocked write to give up', feeding)
  })

  test('a slow reader of one exec does not hold up another', async () => {
    const { id } = await rig.running()
    const slow = await start(rig, id, rig.commands.flood(8 * MiB))
    expect((await rig.exec(id, rig.commands.say('quick', ''))).stdout.toString()).toBe('quick')
    expect((await finish(slow)).stdout.length).toBe(8 * MiB)
  })
}

function terminals(rig: Rig): void {
  test('a terminal is one, has the size that was asked for, and is resized', async () => {
    const { id } = await rig.running()
    const tty = { columns: 91, rows: 17 }
    const starting = start(rig, id, rig.commands.terminal, { tty, stdin: true })
    if (!rig.engine.capabilities.tty) return void (await refused(starting, 'unsupported', 'none'))
    const stream = await starting
    let text = ''
    stream.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
    const stderr = collect(stream.stderr).catch(() => Buffer.alloc(0))
    await until('the first size', () => (text.includes('17 91') ? true : undefined))
    await stream.resize(120, 40)
    await until('the new size', () => (text.includes('40 120') ? true : undefined))
    // ^C from the terminal is what ends a foreground program.
    await stream.write(Buffer.from('\x03'))
    expect([130, 2]).toContain(await within('the terminal to end', stream.exit))
    expect((await stderr).length).toBe(0)
  })

  test('without a terminal there is none', async () => {
    const { id } = await rig.running()
    expect((await rig.exec(id, rig.commands.terminal)).stdout.toString()).toBe('not a tty\n')
  })
}
