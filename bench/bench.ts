/**
 * `npm run bench [-- --json] [-- --engine docker|local] [-- --entry dist/holdfast.js]`: what Holdfast costs, as ratios
 * to the raw engine in the same run. With --json exactly one object is printed.
 */
import { resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { Sandbox } from '@holdfast/client'
import { Client } from 'undici'
import { leaveNothing } from '../test/campaign/stage.ts'
import { openRig, type Rig } from '../test/campaign/world.ts'
import { DOCKER_SOCKET } from '../test/support/docker-subject.ts'
import { ENTRY, type TestServer } from '../test/support/server.ts'
import {
  bareNodeMb,
  figure,
  type Figure,
  interleaved,
  median,
  processMs,
  residentMb,
  timed,
} from './measure.ts'
import { type RawEngine, rawEngine } from './raw.ts'

const CREATES = 15
/** Taken before it counts: a server that has just started still compiles what it runs. */
const WARM_UPS = 5
/** Blocks of commands, and commands in one. */
const EXEC_BLOCKS = 8
const EXECS_PER_BLOCK = 10
const STARTS = 7
const LISTS = 9
const SANDBOXES = 50
/** Until lanes and garbage have settled before memory is read, ms. */
const SETTLE_MS = 10_000
const RUNNING_LIMIT_MS = 120_000

type Figures = Record<string, Figure>

interface Bench {
  readonly rig: Rig
  readonly raw: RawEngine | null
  readonly entry: string
  readonly figures: Figures
  readonly say: (line: string) => void
}

/** Resolves with the sandbox's id once a command in it has answered, and tells how long that took from the request. */
async function firstCommand(
  { rig: { server, world } }: Bench,
  workspace: boolean,
): Promise<{ id: string; ms: number }> {
  let id = ''
  const ms = await timed(async () => {
    const made = await server.client.sandboxes.create({
      image: { uri: world.image },
      entrypoint: ['tail', '-f', '/dev/null'],
      stopGraceSeconds: 0,
      workspace,
    })
    id = made.id
    await runs(server, id)
    const { stdout } = await server.client.sandboxes.exec(id, { command: ['echo', 'ready'] })
    if (stdout !== 'ready\n') throw new Error(`the first command said ${stdout}`)
  })
  return { id, ms }
}

/** As a client waits: by the events of this sandbox, from its first on. */
async function runs(server: TestServer, id: string): Promise<void> {
  const signal = AbortSignal.timeout(RUNNING_LIMIT_MS)
  for await (const event of server.client.events.follow({ sandbox: id, after: 0, signal })) {
    if (event.reason === 'Running') return
    if (event.type === 'Warning') throw new Error(`${event.reason}: ${event.message}`)
  }
  throw new Error(`${id} did not run within ${RUNNING_LIMIT_MS} ms`)
}

async function benchCreate(b: Bench): Promise<void> {
  for (const workspace of [true, false]) {
    b.say(`create to first command, ${workspace ? 'with a workspace volume' : 'without a volume'}`)
    const ours = async (): Promise<number> => {
      const { id, ms } = await firstCommand(b, workspace)
      await b.rig.server.client.sandboxes.remove(id)
      await gone(b.rig.server, id)
      return ms
    }
    const name = workspace ? 'createToFirstCommand' : 'createToFirstCommandWithoutVolume'
    const { raw } = b
    for (let n = 0; n < WARM_UPS; n++) await ours()
    if (raw === null) {
      const all: number[] = []
      for (let n = 0; n < CREATES; n++) all.push(await ours())
      b.figures[name] = figure(median(all), 'ms')
      continue
    }
    const rawMs = async (): Promise<number> => {
      let id = ''
      const ms = await timed(async () => (id = await raw.firstCommand(b.rig.world.image, workspace)))
      await raw.remove(id)
      return ms
    }
    for (let n = 0; n < WARM_UPS; n++) await rawMs()
    const both = await interleaved(CREATES, ours, rawMs)
    b.figures[name] = figure(both.ours, 'ms', both.raw)
  }
}

async function gone(server: TestServer, id: string): Promise<void> {
  for (let n = 0; n < 400; n++) {
    const { status, body } = await server.call<Sandbox>('GET', `/sandboxes/${id}?includeDeleted=true`)
    if (status === 200 && body.deletedAt !== null) return
    await delay(25)
  }
  throw new Error(`${id} was not gone after its delete`)
}

async function benchExec(b: Bench): Promise<void> {
  b.say('exec of true')
  const { server } = b.rig
  const { id } = await firstCommand(b, true)
  // The same HTTP client on both sides, each on a kept connection: what differs is the work behind it.
  const http = new Client(server.url)
  const headers = { 'content-type': 'application/json', 'open-sandbox-api-key': server.apiKey }
  const body = JSON.stringify({ command: ['true'] })
  const path = `/v1/sandboxes/${id}/exec`
  const ours = (): Promise<number> =>
    timed(async () => {
      const answer = await http.request({ method: 'POST', path, headers, body })
      const { exitCode } = (await answer.body.json()) as { exitCode: number | null }
      if (exitCode !== 0) throw new Error(`true ended with ${exitCode}`)
    })
  for (let n = 0; n < 10; n++) await ours()
  const { raw } = b
  if (raw === null) {
    const all: number[] = []
    for (let n = 0; n < EXEC_BLOCKS * EXECS_PER_BLOCK; n++) all.push(await ours())
    b.figures['execTrue'] = figure(median(all), 'ms')
  } else {
    const { instance } = await server.client.sandboxes.get(id)
    const rawMs = (): Promise<number> => timed(() => raw.exec(instance?.engineId ?? '', ['true']))
    const both = await interleaved(EXEC_BLOCKS, ours, rawMs, EXECS_PER_BLOCK)
    b.figures['execTrue'] = figure(both.ours, 'ms', both.raw)
  }
  await http.close()
  await server.client.sandboxes.remove(id)
  await gone(server, id)
}

/** Start-up, the list and memory, beside a Node that does nothing. */
async function benchStart(b: Bench, sandboxes: number): Promise<void> {
  b.say(`server start with ${sandboxes} sandboxes`)
  const { server } = b.rig
  const ours = async (): Promise<number> => {
    await server.stop()
    return timed(() => server.start())
  }
  await ours()
  const both = await interleaved(STARTS, ours, () => processMs(['-e', '0']))
  b.figures[`serverReadyWith${sandboxes}`] = figure(both.ours, 'ms', both.raw)
}

async function benchList(b: Bench): Promise<void> {
  b.say('holdfast ls')
  const { server } = b.rig
  const env = { ...process.env, HOLDFAST_STATE_DIR: server.stateDir, HOLDFAST_API_KEY: server.apiKey }
  const ours = (): Promise<number> => processMs([b.entry, 'ls'], env)
  for (let n = 0; n < 3; n++) await ours()
  const both = await interleaved(LISTS, ours, () => processMs(['-e', '0']))
  b.figures['ls'] = figure(both.ours, 'ms', both.raw)
}

async function fill({ rig: { server, world }, say }: Bench): Promise<void> {
  say(`making ${SANDBOXES} sandboxes`)
  const body = { image: { uri: world.image }, entrypoint: ['tail', '-f', '/dev/null'], stopGraceSeconds: 0 }
  for (let n = 0; n < SANDBOXES; n++) await server.client.sandboxes.create(body)
  for (const s of await server.client.sandboxes.list()) await runs(server, s.id)
}

async function bench(b: Bench): Promise<void> {
  await b.rig.server.start()
  await benchStart(b, 0)
  await benchCreate(b)
  await benchExec(b)
  await fill(b)
  await benchStart(b, SANDBOXES)
  await benchList(b)
  b.say('idle memory')
  await delay(SETTLE_MS)
  b.figures['idleMemory'] = figure(residentMb(b.rig.server.pid()), 'MB', await bareNodeMb())
  await leaveNothing(b.rig)
}

/** What issue and README promise, beside each figure. */
const TARGETS: Readonly<Record<string, string>> = {
  createToFirstCommand: '≤ 1.15×',
  createToFirstCommandWithoutVolume: '≤ 1.15×',
  execTrue: '≤ 0.083× (12 times faster)',
  serverReadyWith0: '≤ 500 ms',
  serverReadyWith50: '≤ 500 ms',
  ls: '≤ 150 ms',
  idleMemory: '≤ 120 MB',
}

function table(figures: Figures): string {
  const rows = [['', 'value', 'raw', 'ratio', 'wanted']]
  for (const [name, f] of Object.entries(figures))
    rows.push([
      name,
      `${f.value} ${f.unit}`,
      f.raw === null ? '' : `${f.raw} ${f.unit}`,
      f.ratio === null ? '' : `${f.ratio}×`,
      TARGETS[name] ?? '',
    ])
  const widths = rows[0]?.map((_, i) => Math.max(...rows.map((r) => (r[i] ?? '').length))) ?? []
  return rows
    .map((r) =>
      r
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      engine: { type: 'string', default: 'docker' },
      entry: { type: 'string' },
    },
  })
  if (values.engine !== 'docker' && values.engine !== 'local') throw new Error('--engine is docker or local')
  const entry = values.entry === undefined ? ENTRY : resolve(values.entry)
  const rig = await openRig(values.engine, DOCKER_SOCKET, { entry })
  const raw = values.engine === 'docker' ? rawEngine(DOCKER_SOCKET) : null
  const figures: Figures = {}
  try {
    await bench({ rig, raw, entry, figures, say: (line) => void process.stderr.write(`bench: ${line}\n`) })
  } catch (error) {
    process.stderr.write(`${rig.server.log()}\n`)
    throw error
  } finally {
    raw?.close()
    await rig.destroy()
  }
  process.stdout.write(`${values.json ? JSON.stringify(figures) : table(figures)}\n`)
  return 0
}

process.exit(await main())
