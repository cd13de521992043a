/**
 * `npm run idle -- --engine docker|local [--minutes 10] [--sandboxes 50]`: a server whose sandboxes are as they should be
 * leaves the engine alone, and the machine too. Exit code 0 only if nothing was changed and the CPU stayed below 1 %.
 */
import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { DOCKER_SOCKET } from '../support/docker-subject.ts'
import type { TestServer } from '../support/server.ts'
import { leaveNothing } from './stage.ts'
import { until } from './until.ts'
import { openRig, type Rig } from './world.ts'

/** Until lanes are open and start-up is over, ms. */
const SETTLE_MS = 20_000
const RUNNING_LIMIT_MS = 300_000
/** Share of one core that is allowed, percent. */
const CPU_MAX = 1
/** Of `getconf CLK_TCK`: the unit of times in /proc, per second, on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100

interface Use {
  readonly cpuSeconds: number
  readonly residentMb: number
}

/** User and system time of the process, all threads, and what it holds in memory. */
function useOf(pid: number): Use {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return {
    cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND,
    residentMb: (Number(kib) * 1024) / 1e6,
  }
}

interface EngineEvents {
  readonly seen: readonly string[]
  stop(): void
}

/** What Docker itself tells of our containers and volumes; looking (an exec too) is no mutation, all else is. */
function watchDocker(installation: string): EngineEvents {
  const filters = encodeURIComponent(JSON.stringify({ label: [`holdfast.dev/installation=${installation}`] }))
  const seen: string[] = []
  let stopped = false
  const broke = (error: Error): void =>
    void (stopped || seen.push(`the event stream broke: ${error.message}`))
  const req = request({ socketPath: DOCKER_SOCKET, path: `/events?filters=${filters}` }, (res) => {
    let text = ''
    res.setEncoding('utf8')
    res.on('data', (chunk: string) => {
      const lines = (text + chunk).split('\n')
      text = lines.pop() ?? ''
      for (const line of lines) {
        const { Type, Action } = JSON.parse(line) as { Type: string; Action: string }
        if (!Action.startsWith('exec_')) seen.push(`${Type} ${Action}`)
      }
    })
    res.on('error', broke)
  })
  req.on('error', broke)
  req.end()
  return {
    seen,
    stop() {
      stopped = true
      req.destroy()
    },
  }
}

async function fill({ server, world }: Rig, count: number): Promise<void> {
  const body = {
    image: { uri: world.image },
    entrypoint: ['sh', '-c', 'while :; do sleep 3600; done'],
    stopGraceSeconds: 0,
  }
  for (let n = 0; n < count; n++) await server.client.sandboxes.create(body)
  await until(`${count} sandboxes run`, RUNNING_LIMIT_MS, async () => {
    const all = await server.client.sandboxes.list()
    return all.length === count && all.every((s) => s.status.state === 'Running')
  })
}

const sum = (steps: Readonly<Record<string, number>>): number =>
  Object.values(steps).reduce((a, b) => a + b, 0)

async function passes(server: TestServer): Promise<number> {
  const text = await (
    await fetch(`${server.url}/metrics`, { headers: { 'open-sandbox-api-key': server.apiKey } })
  ).text()
  return Number(/^holdfast_passes_total (\d+)/m.exec(text)?.[1] ?? Number.NaN)
}

async function idle(rig: Rig, minutes: number, sandboxes: number): Promise<{ line: string; ok: boolean }> {
  const { server, world } = rig
  await server.start()
  await fill(rig, sandboxes)
  await delay(SETTLE_MS)
  const { installation } = await server.client.info()
  const docker = world.kind === 'docker' ? watchDocker(installation) : null
  const steps = sum(await server.steps())
  const passesBefore = await passes(server)
  const before = useOf(server.pid())
  const began = performance.now()
  await delay(minutes * 60_000)
  const seconds = (performance.now() - began) / 1000
  const after = useOf(server.pid())
  const mutations = sum(await server.steps()) - steps
  const passesMade = (await passes(server)) - passesBefore
  docker?.stop()
  const cpu = ((after.cpuSeconds - before.cpuSeconds) / seconds) * 100
  await leaveNothing(rig)
  await server.stop()
  const events =
    docker === null
      ? 'not watched'
      : `${docker.seen.length}${docker.seen.length === 0 ? '' : ` (${[...new Set(docker.seen)].join(', ')})`}`
  return {
    line: `idle ${world.kind}: ${sandboxes} sandboxes, ${(seconds / 60).toFixed(1)} min: ${mutations} mutations, engine events ${events}, ${passesMade} passes, ${cpu.toFixed(2)} % of a core, ${before.residentMb.toFixed(0)} MB then ${after.residentMb.toFixed(0)} MB`,
    ok: mutations === 0 && (docker?.seen.length ?? 0) === 0 && cpu <= CPU_MAX,
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      engine: { type: 'string', default: 'docker' },
      minutes: { type: 'string', default: '10' },
      sandboxes: { type: 'string', default: '50' },
      entry: { type: 'string' },
    },
  })
  if (values.engine !== 'docker' && values.engine !== 'local') throw new Error('--engine is docker or local')
  const rig = await openRig(
    values.engine,
    DOCKER_SOCKET,
    values.entry === undefined ? {} : { entry: values.entry },
  )
  try {
    const { line, ok } = await idle(rig, Number(values.minutes), Number(values.sandboxes))
    process.stdout.write(`${line}\n`)
    return ok ? 0 : 1
  } catch (error) {
    process.stderr.write(`${rig.server.log()}\n`)
    throw error
  } finally {
    await rig.destroy()
  }
}

process.exit(await main())
