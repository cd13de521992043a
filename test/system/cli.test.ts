import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Sandbox, Volume } from '@holdfast/client'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { createTestServer, type TestServer } from '../support/server.ts'

/** The real program against a real server on the engine that needs no install. */
const ENTRY = resolve(import.meta.dirname, '../../src/cli/main.ts')
const IMAGE = 'host'

interface Result {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

interface Running {
  readonly child: ChildProcessWithoutNullStreams
  out(): string
  readonly done: Promise<Result>
}

let server: TestServer
let dir = ''
const children = new Set<ChildProcessWithoutNullStreams>()

beforeAll(async () => {
  server = await createTestServer({ engine: 'local' })
  await server.start()
  dir = await mkdtemp(join(tmpdir(), 'holdfast-cli-'))
})
afterEach(() => {
  for (const child of children) child.kill('SIGKILL')
  children.clear()
})
afterAll(async () => {
  if (!server.running()) await server.start()
  const ids = (await hf('ls', '-q')).out.trim().split('\n').filter(Boolean)
  if (ids.length > 0) await hf('rm', '-f', ...ids)
  const volumes = (await hf('volume', 'ls', '-q')).out.trim().split('\n').filter(Boolean)
  if (volumes.length > 0) await hf('volume', 'rm', ...volumes)
  const audit = await hf('audit')
  await server.stop()
  await server.destroy()
  await rm(dir, { recursive: true, force: true })
  expect(audit).toMatchObject({ code: 0 })
})

function start(
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  program = process.execPath,
  before: string[] = [ENTRY],
): Running {
  const child = spawn(program, [...before, ...args], {
    stdio: 'pipe',
    env: {
      ...process.env,
      HOLDFAST_STATE_DIR: server.stateDir,
      HOLDFAST_SERVER: server.url,
      HOLDFAST_API_KEY: server.apiKey,
      NO_COLOR: '1',
      FORCE_COLOR: undefined,
      ...env,
    },
  })
  children.add(child)
  const out: Buffer[] = []
  const err: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk))
  // A program that ends without reading its stdin closes it early.
  child.stdin.on('error', () => undefined)
  const done = once(child, 'close').then(([code]): Result => {
    children.delete(child)
    return {
      code: code as number | null,
      out: Buffer.concat(out).toString('latin1'),
      err: Buffer.concat(err).toString(),
    }
  })
  return { child, out: () => Buffer.concat(out).toString(), done }
}

function hf(...args: string[]): Promise<Result> {
  const run = start(args)
  run.child.stdin.end()
  return run.done
}

/** The command must end well; what it printed. */
async function ok(...args: string[]): Promise<string> {
  const { code, out, err } = await hf(...args)
  if (code !== 0) throw new Error(`holdfast ${args.join(' ')} ended with ${code}: ${err}\n${server.log()}`)
  return out
}

async function inspect(ref: string): Promise<Sandbox> {
  return JSON.parse(await ok('inspect', ref)) as Sandbox
}

/** Waits until a running command has printed what fits. */
async function printed(run: Running, what: RegExp): Promise<void> {
  while (!what.test(run.out())) await once(run.child.stdout, 'data', { signal: AbortSignal.timeout(20_000) })
}

describe('the life of a sandbox', () => {
  it('is made, used, stopped and started with its data, changed and deleted', async () => {
    const id = (await ok('create', IMAGE, '--name', 'life', '-e', 'A=1')).trim()
    expect(await inspect('life')).toMatchObject({
      id,
      name: 'life',
      status: { state: 'Running' },
      env: { A: '1' },
    })
    await ok('exec', 'life', '--', 'sh', '-c', 'echo kept > /sandbox/file')
    expect(await ok('stop', 'life')).toBe('life\n')
    expect((await inspect('life')).status.state).toBe('Stopped')
    expect((await hf('exec', 'life', 'true')).code).toBe(4)
    await ok('start', 'life')
    expect(await ok('exec', 'life', 'cat', '/sandbox/file')).toBe('kept\n')
    const before = await inspect('life')
    await ok('restart', 'life')
    expect((await inspect('life')).instance?.startedAt).not.toBe(before.instance?.startedAt)
    await ok('update', 'life', '-e', 'A=2', '-e', 'B=3')
    expect(await ok('exec', 'life', '--', 'sh', '-c', 'echo $A $B; cat /sandbox/file')).toBe('2 3\nkept\n')
    expect(await ok('explain', 'life')).toMatch(/Wanted: +running[^]*Data: +workspace/)
    expect(await ok('rm', 'life')).toBe('life\n')
    expect((await hf('inspect', 'life')).code).toBe(3)
    expect(JSON.parse(await ok('inspect', '--all', id))).toMatchObject({ id, deletedAt: expect.any(String) })
    expect(await ok('events', id)).toMatch(/StopRequested[^]*StartRequested/)
  })

  it('is found by name, id and the beginning of an id, and every ref of a command is handled', async () => {
    const a = (await ok('create', IMAGE, '-n', 'refs-a')).trim()
    const b = (await ok('create', IMAGE)).trim()
    for (const ref of ['refs-a', a, a.slice(0, 8)]) expect((await inspect(ref)).id).toBe(a)
    const all = JSON.parse(await ok('inspect', 'refs-a', b)) as Sandbox[]
    expect(all.map((s) => s.id)).toEqual([a, b])
    const removed = await hf('rm', a, 'no-such', b)
    expect(removed.code).toBe(3)
    expect(removed.out.trim().split('\n').toSorted()).toEqual([a, b].toSorted())
    expect(removed.err).toContain('no-such: There is no sandbox')
    expect((await hf('rm', '-f', 'no-such')).code).toBe(0)
  })

  it('is listed as table, json, names and ids', async () => {
    const id = (await ok('create', IMAGE, '-n', 'listed', '-l', 'team=ci', '--expires', '1h')).trim()
    const lines = (await ok('ls', '-l', 'team=ci')).trim().split('\n')
    expect(lines[0]).toMatch(/^ID +NAME +STATE +IMAGE +AGE +EXPIRES$/)
    expect(lines[1]).toMatch(new RegExp(`^${id} +listed +Running +host +\\d+s +in (59m|1h)`))
    expect(await ok('ls', '-q', '-l', 'team=ci')).toBe(`${id}\n`)
    expect(await ok('ls', '-o', 'name', '-l', 'team=ci')).toBe('listed\n')
    expect(JSON.parse(await ok('ls', '-o', 'json', '-l', 'team=ci'))).toMatchObject([
      { id, metadata: { team: 'ci' } },
    ])
    expect(await ok('ls', '-o', 'json', '-l', 'team=other')).toBe('[]\n')
    expect(await ok('renew', '--for', '3h', 'listed')).toContain('listed expires at')
    await ok('rm', id)
  })

  it('waits, and says what it waited for when the time is up', async () => {
    await ok('create', IMAGE, '-n', 'waits')
    const late = await hf('wait', '--for', 'stopped', '--timeout', '500ms', 'waits')
    expect(late.code).toBe(124)
    expect(late.err).toContain('holdfast explain waits')
    const waiting = start(['wait', '--for', 'deleted', 'waits'])
    await ok('rm', '--no-wait', 'waits')
    expect((await waiting.done).code).toBe(0)
  })

  it('that cannot be made yet stays, and its create tells the cause', async () => {
    const made = await hf('create', 'no-such-image', '-n', 'blocked', '--timeout', '2s')
    if (made.code === 124) {
      expect(made.err).toContain('blocked is Blocked')
      await ok('rm', 'blocked')
    } else expect(made.code).toBe(2)
  })

  it('ends a wait at Ctrl-C with 130, and what was accepted goes on', async () => {
    await ok('create', IMAGE, '-n', 'ctrl')
    const waiting = start(['wait', '--for', 'stopped', 'ctrl', '--progress'])
    await once(waiting.child.stderr, 'data')
    waiting.child.kill('SIGINT')
    expect(await waiting.done).toMatchObject({ code: 130, err: expect.stringContaining('Interrupted') })
    await ok('rm', 'ctrl')
  })
})

describe('exit codes', () => {
  it.each([
    [[], 2],
    [['no-such-command'], 2],
    [['create'], 2],
    [['ls', '-o', 'xml'], 2],
    [['renew', 'x'], 2],
    [['wait', '--timeout', 'soon', 'x'], 2],
    [['cp', 'a', 'b'], 2],
    [['stop', 'no-such'], 3],
    [['volume', 'inspect', 'no-such'], 3],
    [['--help'], 0],
    [['help', 'create'], 0],
    [['--version'], 0],
  ])('holdfast %j ends with %i', async (args, code) => {
    expect((await hf(...args)).code).toBe(code)
  })

  it('5 without a server, with how to start one', async () => {
    const run = start(['ls'], { HOLDFAST_SERVER: 'http://127.0.0.1:9' })
    expect(await run.done).toMatchObject({
      code: 5,
      out: '',
      err: expect.stringContaining('holdfast server'),
    })
  })

  it('1 with a wrong key, 4 for a name that is taken', async () => {
    expect((await start(['ls'], { HOLDFAST_API_KEY: 'wrong' }).done).code).toBe(1)
    await ok('create', IMAGE, '-n', 'taken', '--no-wait')
    expect((await hf('create', IMAGE, '-n', 'taken')).code).toBe(4)
    await ok('rm', 'taken')
  })
})

describe('inside a sandbox', () => {
  beforeAll(async () => {
    await ok('create', IMAGE, '-n', 'in')
  })
  afterAll(() => ok('rm', 'in'))

  it('passes exit codes, both outputs, environment and working directory', async () => {
    const script = 'echo out; echo err >&2; pwd; echo $V; exit 42'
    const { code, out, err } = await hf('exec', '-w', '/tmp', '-e', 'V=x y', 'in', '--', 'sh', '-c', script)
    expect({ code, out, err }).toEqual({ code: 42, out: 'out\n/tmp\nx y\n', err: 'err\n' })
    expect((await hf('exec', 'in', '--', 'sh', '-c', 'kill -KILL $$')).code).toBe(137)
    expect((await hf('exec', '--timeout', '1s', 'in', 'sleep', '30')).code).toBe(124)
  })

  it('takes and gives megabytes of any bytes', async () => {
    const data = randomBytes(3_000_000)
    const run = start(['exec', '-i', 'in', 'cat'])
    run.child.stdin.end(data)
    const { code, out } = await run.done
    expect(code).toBe(0)
    expect(Buffer.from(out, 'latin1').equals(data)).toBe(true)
  })

  it('sends the first Ctrl-C to the command and leaves at the second', async () => {
    const polite = start([
      'exec',
      'in',
      '--',
      'sh',
      '-c',
      'trap "echo got; exit 9" INT; echo ready; while :; do sleep 0.1; done',
    ])
    await printed(polite, /ready/)
    polite.child.kill('SIGINT')
    expect(await polite.done).toMatchObject({ code: 9, out: 'ready\ngot\n' })
    const deaf = start([
      'exec',
      'in',
      '--',
      'sh',
      '-c',
      'trap "echo got" INT; echo ready; while :; do sleep 0.1; done',
    ])
    await printed(deaf, /ready/)
    deaf.child.kill('SIGINT')
    await printed(deaf, /got/)
    deaf.child.kill('SIGINT')
    expect((await deaf.done).code).toBe(130)
  })

  it('opens a shell on a terminal of the right kind', async () => {
    const line = `stty rows 30 cols 100; exec ${process.execPath} ${ENTRY} shell in`
    const shell = start([], { TERM: 'xterm' }, 'script', ['-qec', line, '/dev/null'])
    shell.child.stdin.write('stty size; test -t 0 && echo is-$((40+2))-tty; exit 4\n')
    const { code, out } = await shell.done
    expect(out).toContain('is-42-tty')
    expect(out).toContain('30 100')
    expect(code).toBe(4)
    expect((await hf('shell', 'in')).code).toBe(2)
  })

  it('copies trees in and out by the rules of docker cp', async () => {
    const from = join(dir, 'from')
    await mkdir(join(from, 'sub'), { recursive: true })
    await writeFile(join(from, 'a'), 'a')
    await writeFile(join(from, 'sub', 'b'), randomBytes(200_000))
    await symlink('../a', join(from, 'sub', 'link'))
    await ok('cp', from, 'in:/sandbox')
    await ok('cp', `${from}/.`, 'in:/sandbox/copy')
    expect(await ok('exec', 'in', 'ls', '/sandbox/from', '/sandbox/copy')).toBe(
      '/sandbox/copy:\na\nsub\n\n/sandbox/from:\na\nsub\n',
    )
    await ok('cp', 'in:/sandbox/from', join(dir, 'back'))
    expect(
      (await readFile(join(dir, 'back', 'sub', 'b'))).equals(await readFile(join(from, 'sub', 'b'))),
    ).toBe(true)
    expect(await readlink(join(dir, 'back', 'sub', 'link'))).toBe('../a')
    await ok('cp', 'in:/sandbox/from/a', join(dir, 'renamed'))
    expect(await readFile(join(dir, 'renamed'), 'utf8')).toBe('a')
    expect((await hf('cp', 'in:/sandbox/none', dir)).code).toBe(3)
    expect((await hf('cp', join(from, 'a'), 'in:/none/x')).code).toBe(3)
    const tar = start(['cp', 'in:/sandbox/from/a', '-'])
    const packed = Buffer.from((await tar.done).out, 'latin1')
    expect(packed.subarray(0, 1).toString()).toBe('a')
    const unpack = start(['cp', '-', 'in:/tmp'])
    unpack.child.stdin.end(packed)
    expect((await unpack.done).code).toBe(0)
    expect(await ok('exec', 'in', 'cat', '/tmp/a')).toBe('a')
  })

  it('makes a link that says where it leads', async () => {
    const { id } = await inspect('in')
    expect(await ok('port', 'in', '8000')).toMatch(
      new RegExp(`^http://${id}-8000\\.localhost:\\d+/\\?holdfast-token=`),
    )
  })
})

describe('run', () => {
  it('shows both outputs, ends as the command does and leaves nothing with --rm', async () => {
    const { code, out, err } = await hf(
      'run',
      '--rm',
      '-n',
      'once',
      IMAGE,
      '--',
      'sh',
      '-c',
      'echo out; echo err >&2; exit 7',
    )
    expect({ code, out }).toEqual({ code: 7, out: 'out\n' })
    expect(err).toContain('err\n')
    await ok('wait', '--for', 'deleted', 'once')
  })

  it('stops the command at Ctrl-C and gives its exit code', async () => {
    const run = start([
      'run',
      '--rm',
      IMAGE,
      '--',
      'sh',
      '-c',
      'trap "echo bye; exit 5" TERM; echo up; while :; do sleep 0.1; done',
    ])
    await printed(run, /up/)
    run.child.kill('SIGINT')
    expect(await run.done).toMatchObject({ code: 5, out: 'up\nbye\n' })
  })

  it('feeds a command beside the one that keeps the sandbox up with -i', async () => {
    const run = start(['run', '--rm', '-i', IMAGE, '--', 'tr', 'a-z', 'A-Z'])
    run.child.stdin.end('hello\n')
    expect(await run.done).toMatchObject({ code: 0, out: 'HELLO\n' })
  })

  it('goes on over a killed server: no line lost, none twice, the right exit code', async () => {
    const script = 'i=1; while [ $i -le 60 ]; do echo line $i; i=$((i+1)); sleep 0.1; done; exit 6'
    const run = start(['run', '-n', 'over', IMAGE, '--', 'sh', '-c', script])
    await printed(run, /line 3/)
    const follow = start(['logs', '-f', 'over'])
    const wait = start(['wait', '--for', 'stopped', 'over', '--progress'])
    // Its first look is over: from here on it waits for the server, too.
    await once(wait.child.stderr, 'data', { signal: AbortSignal.timeout(20_000) })
    await printed(follow, /line 3/)
    await server.kill()
    await server.start()
    const want = Array.from({ length: 60 }, (_, i) => `line ${i + 1}\n`).join('')
    expect(await run.done).toMatchObject({ code: 6, out: want })
    expect(await follow.done).toMatchObject({ code: 0, out: want })
    expect((await wait.done).code).toBe(0)
    expect(await ok('logs', '--tail', '2', 'over')).toBe('line 59\nline 60\n')
    await ok('rm', 'over')
  })
})

describe('volumes, events and the server', () => {
  it('makes, shows, protects and removes a volume', async () => {
    expect(await ok('volume', 'create', 'vol')).toBe('vol\n')
    await ok('create', IMAGE, '-n', 'holder', '-v', 'vol:/data')
    expect(JSON.parse(await ok('volume', 'inspect', 'vol')) as Volume).toMatchObject({
      claimName: 'vol',
      retention: 'retain',
    })
    expect((await hf('volume', 'rm', 'vol')).code).toBe(4)
    await ok('exec', 'holder', '--', 'sh', '-c', 'echo d > /data/d')
    await ok('rm', 'holder')
    await ok('create', IMAGE, '-n', 'heir', '-v', 'vol:/data')
    expect(await ok('exec', 'heir', 'cat', '/data/d')).toBe('d\n')
    await ok('rm', 'heir')
    expect(await ok('volume', 'rm', 'vol')).toBe('vol\n')
    expect(await ok('volume', 'ls', '-o', 'name')).not.toMatch(/^vol$/m)
  })

  it('follows events as they come', async () => {
    await ok('create', IMAGE, '-n', 'seen')
    const events = start(['events', '-f', '-o', 'json', 'seen'])
    await printed(events, /"Running"/)
    await ok('stop', 'seen')
    await printed(events, /"StopRequested"/)
    events.child.kill('SIGINT')
    const { code, out } = await events.done
    expect(code).toBe(130)
    const seqs = out
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { seq: number }).seq)
    expect(seqs).toEqual([...new Set(seqs)].toSorted((a, b) => a - b))
    await ok('rm', 'seen')
  })

  it('finds the server of a state directory by itself, and doctor and audit are content', async () => {
    const run = start(['doctor'], { HOLDFAST_SERVER: undefined, HOLDFAST_LISTEN: undefined })
    const { out } = await run.done
    expect(out).toMatch(new RegExp(`server +ok +${server.url} \\(from state directory\\)`))
    expect(await ok('audit')).toContain('local: clean')
  })
})
