import type { Program, System } from './process.ts'

/**
 * The small vocabulary that simulated workloads and execs are written in: `['sim', verb, …]`, several in a row with
 * `then` between them, as `['sim', 'append', '/data/log', 'started', 'then', 'run']`. A verb that ends with a status
 * other than 0 ends the row.
 */
type Verb = (system: System, args: readonly string[]) => Promise<number>

const CHUNK = 64 * 1024
const TICK_MS = 100
const LATE_MS = 1_000

async function untilTerm(system: System): Promise<number> {
  system.onTerm(() => system.exit(0))
  return system.forever()
}

async function writeFile(system: System, path: string, text: string, keep: boolean): Promise<number> {
  const before = keep && system.files.stat(path) !== null ? system.files.read(path) : new Uint8Array()
  system.files.write(path, { type: 'file', mode: 0o644, data: Buffer.concat([before, Buffer.from(text)]) })
  return 0
}

const VERBS: Readonly<Record<string, Verb>> = {
  run: untilTerm,
  /** exit CODE [after MS] */
  async exit(system, [code, , ms]) {
    if (ms !== undefined) await system.sleep(Number(ms))
    return Number(code)
  },
  async sleep(system, [ms]) {
    await system.sleep(Number(ms))
    return 0
  },
  async 'kill-self'(system) {
    system.raise('KILL')
    return system.forever()
  },
  async 'late-term'(system) {
    system.onTerm(() => {
      void system
        .sleep(LATE_MS)
        .then(() => system.print('finished\n'))
        .then(() => system.exit(7))
    })
    await system.print('ready\n')
    return system.forever()
  },
  async 'ignore-term'(system) {
    system.onTerm(() => undefined)
    await system.print('ready\n')
    return system.forever()
  },
  async ticks(system) {
    for (;;) {
      await system.print('tick\n')
      await system.sleep(TICK_MS)
    }
  },
  /** say OUT ERR */
  async say(system, [out = '', err = '']) {
    if (out !== '') await system.print(out)
    if (err !== '') await system.complain(err)
    return 0
  },
  async 'two-lines'(system) {
    await system.print('one\n')
    await system.sleep(2_000)
    await system.print('two\n')
    return 0
  },
  async show(system, [variable = '']) {
    await system.print(
      `${system.env[variable] ?? ''}\n${system.workingDir}\n${system.user}\n${system.hostname}\n`,
    )
    return 0
  },
  /** write PATH TEXT */
  write: (system, [path = '', text = '']) => writeFile(system, path, text, false),
  append: (system, [path = '', text = '']) => writeFile(system, path, text, true),
  async read(system, [path = '']) {
    await system.print(system.files.read(path))
    return 0
  },
  async cat(system) {
    for (let data = await system.read(); data !== null; data = await system.read()) await system.print(data)
    await system.complain('end\n')
    return 0
  },
  /** flood BYTES */
  async flood(system, [bytes]) {
    for (let left = Number(bytes); left > 0; left -= CHUNK)
      await system.print(Buffer.alloc(Math.min(left, CHUNK)))
    return 0
  },
  async terminal(system) {
    for (;;) {
      const size = system.terminal()
      if (size === null) {
        await system.print('not a tty\n')
        return 0
      }
      await system.print(`${size.rows} ${size.columns}\r\n`)
      await system.sleep(TICK_MS)
    }
  },
  async echo(system, [port]) {
    system.listen(Number(port))
    return untilTerm(system)
  },
}

/** Ordinary programs that are worth having so that a test need not speak the vocabulary. */
const COMMON: Readonly<Record<string, Verb>> = {
  true: async () => 0,
  false: async () => 1,
  async echo(system, args) {
    await system.print(`${args.join(' ')}\n`)
    return 0
  },
  sleep: untilKilled,
  tail: untilKilled,
}

async function untilKilled(system: System): Promise<number> {
  return system.forever()
}

function split(args: readonly string[]): string[][] {
  const rows: string[][] = [[]]
  for (const arg of args) {
    if (arg === 'then') rows.push([])
    else rows.at(-1)?.push(arg)
  }
  return rows
}

/**
 * The program of an argument list, null when there is none. As a main process anything outside the vocabulary runs
 * until it is ended, because what an ordinary entrypoint does is of no interest here.
 */
export function findProgram(command: readonly string[], main: boolean): Program | null {
  const [name = '', ...args] = command
  if (name !== 'sim') {
    const common = Object.hasOwn(COMMON, name) ? COMMON[name] : undefined
    if (common !== undefined) return (system) => common(system, args)
    return main ? untilKilled : null
  }
  const rows = split(args).map(([verb = '', ...rest]) => ({
    verb: Object.hasOwn(VERBS, verb) ? VERBS[verb] : undefined,
    rest,
  }))
  if (rows.some((row) => row.verb === undefined)) return null
  return async (system) => {
    for (const { verb, rest } of rows) {
      const code = (await verb?.(system, rest)) ?? 0
      if (code !== 0) return code
    }
    return 0
  }
}
