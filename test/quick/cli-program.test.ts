import { execFileSync } from 'node:child_process'
import { PassThrough } from 'node:stream'
import { ApiError, createClient, type Client } from '@holdfast/client'
import { describe, expect, it } from 'vitest'
import { CATALOG } from '../../src/cli/catalog.ts'
import { bashScript, fishScript, zshScript } from '../../src/cli/completion.ts'
import type { GlobalOptions, Io } from '../../src/cli/context.ts'
import { CliError, describe as describeError, exitCodeOf, Interrupted, worst } from '../../src/cli/errors.ts'
import { UsageError } from '../../src/cli/parse.ts'
import { buildProgram, commandWord, entryFor, runCli } from '../../src/cli/program.ts'

interface Harness {
  readonly io: Io
  readonly out: () => string
  readonly err: () => string
}

function harness(): Harness {
  const stream = (): { sink: NodeJS.WriteStream; text: () => string } => {
    const chunks: Buffer[] = []
    const sink = new PassThrough()
    sink.on('data', (chunk: Buffer) => chunks.push(chunk))
    return { sink: sink as unknown as NodeJS.WriteStream, text: () => Buffer.concat(chunks).toString() }
  }
  const [out, err] = [stream(), stream()]
  const stdin = new PassThrough() as unknown as NodeJS.ReadStream
  const sleep: Io['sleep'] = (_ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal.aborted) reject(signal.reason as Error)
      else setImmediate(resolve)
    })
  return {
    io: { stdin, stdout: out.sink, stderr: err.sink, env: {}, now: () => 0, sleep },
    out: out.text,
    err: err.text,
  }
}

/** Runs a command line with a client whose every request the given function answers. */
async function run(
  argv: readonly string[],
  answer: (request: Request) => Response,
): Promise<{ code: number; out: string; err: string; globals: GlobalOptions | null }> {
  const { io, out, err } = harness()
  let globals: GlobalOptions | null = null
  const client: Client = createClient({
    baseUrl: 'http://x',
    retryLimitMs: 0,
    fetch: (request) => Promise.resolve(answer(request)),
  })
  const code = await runCli(argv, {
    io,
    signals: { onInterrupt: () => () => undefined },
    connect: (given) => {
      globals = given
      return {
        connection: () => ({
          url: 'http://x',
          apiKey: undefined,
          stateDir: '/none',
          urlFrom: 'flag',
          keyFrom: 'nowhere',
        }),
        client: () => Promise.resolve(client),
      }
    },
  })
  return { code, out: out(), err: err(), globals }
}

const empty = (): Response => Response.json({ items: [], pagination: { hasNextPage: false } })
const all = (): ReturnType<typeof buildProgram> =>
  buildProgram(harness().io, CATALOG, () => () => Promise.resolve())

describe('the command line', () => {
  it('finds the command among the options before it', () => {
    expect(commandWord(['--server', 'http://x', '--api-key', 'k', 'ls', 'stop'])).toBe('ls')
    expect(commandWord(['help', 'exec'])).toBe('exec')
    expect(commandWord(['--version'])).toBeNull()
    expect(entryFor('ps')?.name).toBe('ls')
    expect(entryFor('link')?.name).toBe('port')
    expect(entryFor('nothing')).toBeNull()
  })

  it('takes the connection options before and after the command', async () => {
    for (const argv of [
      ['--server', 'http://s', 'ls'],
      ['ls', '--server', 'http://s'],
    ]) {
      const { code, globals } = await run(argv, empty)
      expect({ code, server: globals?.server }).toEqual({ code: 0, server: 'http://s' })
    }
  })

  it('has a description, examples and working help for every command', async () => {
    const program = await all()
    for (const entry of CATALOG) {
      const leaves = program.commands.find((c) => c.name() === entry.name)?.commands ?? []
      for (const name of leaves.length === 0 ? [[entry.name]] : leaves.map((c) => [entry.name, c.name()])) {
        const { code, out } = await run([...name, '--help'], empty)
        expect({ name, code }).toEqual({ name, code: 0 })
        expect(out).toContain('Examples:')
        expect(out).toMatch(/^ {2}(\S.*)?holdfast /m)
        expect(out).toContain('--server')
      }
    }
  })

  it('suggests the command that was meant', async () => {
    const { code, err } = await run(['strat', 'x'], empty)
    expect(code).toBe(2)
    expect(err).toContain("holdfast: unknown command 'strat'")
    expect(err).toContain('start')
  })

  it('keeps the words after -- and after the sandbox of exec away from its own options', async () => {
    const { err, code } = await run(
      ['create', 'img', '-o', 'json', '--no-wait', '--', 'cmd', '-o', 'x'],
      (request) => {
        expect(request.method).toBe('POST')
        return Response.json({ id: 'a', name: null })
      },
    )
    expect({ err, code }).toEqual({ err: '', code: 0 })
  })

  it('tells an error with its suggestion on stderr, and nothing on stdout', async () => {
    const body = {
      code: 'SANDBOX::NOT_FOUND',
      message: 'There is no sandbox "x".',
      suggestion: 'holdfast ls',
    }
    const result = await run(['stop', 'x'], () => Response.json(body, { status: 404 }))
    expect(result).toMatchObject({
      code: 3,
      out: '',
      err: 'holdfast: There is no sandbox "x".\n  holdfast ls\n',
    })
  })

  it('tells why it waits once per cause, and gives up with 124', async () => {
    let clock = 0
    const { io, err } = harness()
    const blocked = {
      id: 'a',
      name: 'web',
      generation: 1,
      observedGeneration: 1,
      deletedAt: null,
      desired: {},
      status: { state: 'Blocked', reason: 'R', message: 'no such image' },
    }
    const client = createClient({
      baseUrl: 'http://x',
      fetch: (request) =>
        Promise.resolve(Response.json(request.url.includes('resolve') ? { id: 'a' } : blocked)),
    })
    const code = await runCli(['wait', 'web', '--timeout', '20s'], {
      io: {
        ...io,
        now: () => clock,
        sleep: (ms) => {
          clock += ms
          return new Promise((resolve) => setImmediate(resolve))
        },
      },
      signals: { onInterrupt: () => () => undefined },
      connect: () => ({
        connection: () => ({
          url: 'http://x',
          apiKey: undefined,
          stateDir: '/none',
          urlFrom: 'flag',
          keyFrom: 'nowhere',
        }),
        client: () => Promise.resolve(client),
      }),
    })
    expect(code).toBe(124)
    expect(err().match(/web is Blocked: no such image/g)).toHaveLength(1)
    expect(err()).toContain('holdfast explain web')
    expect(clock).toBeLessThanOrEqual(20_000)
  })
})

describe('exit codes', () => {
  it('of errors are those of the table', () => {
    const api = (code: string, status: number): number =>
      exitCodeOf(new ApiError({ code, status, message: '' }))
    expect(api('SANDBOX::NOT_FOUND', 404)).toBe(3)
    expect(api('VOLUME::IN_USE', 409)).toBe(4)
    expect(api('INVALID_REQUEST', 400)).toBe(2)
    expect(api('SERVER_UNREACHABLE', 503)).toBe(5)
    expect(api('TIMEOUT', 504)).toBe(124)
    expect(api('SOMETHING_NEW', 409)).toBe(4)
    expect(api('SOMETHING_NEW', 500)).toBe(1)
    expect(exitCodeOf(new Interrupted())).toBe(130)
    expect(exitCodeOf(new UsageError('x'))).toBe(2)
    expect(exitCodeOf(new CliError(42, 'x'))).toBe(42)
    expect(exitCodeOf(new Error('x'))).toBe(1)
  })

  it('of several refs are the worst', () => {
    expect(worst([])).toBe(0)
    expect(worst([0, 0])).toBe(0)
    expect(worst([0, 3, 0])).toBe(3)
    expect(worst([3, 4, 2])).toBe(4)
    expect(worst([4, 5, 124, 1])).toBe(5)
    expect(worst([3, 130])).toBe(130)
    expect(worst([3, 77])).toBe(77)
  })

  it('come with what happened and the next command', () => {
    expect(describeError(new UsageError('bad', 'do this'), 'web')).toBe('holdfast: web: bad\n  do this')
  })
})

describe('completion', () => {
  const complete = async (...words: string[]): Promise<string[]> => {
    const script = bashScript(await all())
    const run = `holdfast() { case "$*" in 'ls -o name') echo web db;; 'volume ls -o name') echo site;; esac; }
COMP_WORDS=(holdfast ${words.map((w) => `'${w}'`).join(' ')}); COMP_CWORD=${words.length}; _holdfast; printf '%s\\n' "\${COMPREPLY[@]}"`
    return execFileSync('bash', ['-c', `${script}\n${run}`], { encoding: 'utf8' })
      .split('\n')
      .filter(Boolean)
  }

  it('offers commands, options, choices, sandboxes and volumes in bash', async () => {
    expect(await complete('')).toEqual(CATALOG.map((e) => e.name))
    expect(await complete('re')).toEqual(['restart', 'recover', 'renew', 'resume', 'restore', 'rebuild'])
    expect(await complete('ls', '--a')).toEqual(['--all', '--api-key'])
    expect(await complete('wait', '--for', 's')).toEqual(['stopped'])
    expect(await complete('stop', '')).toEqual(['web', 'db'])
    expect(await complete('volume', '')).toEqual(['create', 'ls', 'inspect', 'rm'])
    expect(await complete('volume', 'rm', '')).toEqual(['site'])
  })

  it('names every command and quotes every text in zsh and fish', async () => {
    const program = await all()
    for (const script of [zshScript(program), fishScript(program)]) {
      for (const { name } of CATALOG) expect(script).toContain(name)
      // An unclosed quote anywhere would break the whole script.
      for (const line of script.split('\n')) {
        const quotes =
          line
            .replaceAll(/'\\''|\\'/g, '')
            .replaceAll(/"[^"]*"/g, '')
            .match(/'/g)?.length ?? 0
        expect({ line, even: quotes % 2 }).toEqual({ line, even: 0 })
      }
    }
  })
})
