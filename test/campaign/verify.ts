import { setTimeout as delay } from 'node:timers/promises'
import { Readable } from 'node:stream'
import type { Sandbox } from '@holdfast/client'
import { extract } from 'tar-stream'
import { mountsBelow, type TestServer } from '../support/server.ts'
import { type History, type Promised, sha256 } from './model.ts'
import { until } from './until.ts'
import { running } from './witness.ts'
import { processesOf, type World } from './world.ts'

/** From the last fault until everything is as promised: backoffs and deadlines of lost calls included, ms. */
const CONVERGE_LIMIT_MS = 180_000
/** After that nothing may happen on the engine for this long, ms. */
const STILL_MS = 6_000
/** Windows within which the last delayed removal must be over: together longer than the limit of a create. */
const STILL_WINDOWS = 5
const WIPE_LIMIT_MS = 120_000

/** `gone`, or the states that a sandbox may be in. */
export type Expected = (p: Promised) => ReadonlySet<string>

const STATE = { running: 'Running', paused: 'Paused', stopped: 'Stopped', deleted: 'gone' } as const
const asPromised: Expected = (p) => new Set([STATE[p.desired]])

async function everything(server: TestServer): Promise<Map<string, Sandbox>> {
  return new Map((await server.client.sandboxes.list()).map((s) => [s.id, s]))
}

function differences(
  history: History,
  now: ReadonlyMap<string, Sandbox>,
  expected: Expected,
): Map<string, string> {
  const out = new Map<string, string>()
  for (const p of history.sandboxes.values()) {
    const s = now.get(p.id)
    const state = s === undefined ? 'gone' : s.status.state
    const wanted = expected(p)
    // What is lost can apply nothing until it is recovered.
    const behind = s !== undefined && s.generation !== s.observedGeneration && state !== 'Lost'
    if (!wanted.has(state) || behind)
      out.set(
        p.id,
        `${p.name}: promised ${[...wanted].join(' or ')}, is ${state} (${s?.desired.state} by ${s?.desired.reason}, generation ${s?.observedGeneration}/${s?.generation}): ${s?.status.message ?? ''}`,
      )
  }
  return out
}

/** Waits until every acknowledged intent holds; what does not is told with its explanation. */
export async function verifyStates(
  server: TestServer,
  history: History,
  expected: Expected = asPromised,
): Promise<number> {
  const began = performance.now()
  try {
    await until(
      'everything is as promised',
      CONVERGE_LIMIT_MS,
      async () => differences(history, await everything(server), expected).size === 0,
    )
  } catch {
    for (const [id, text] of differences(history, await everything(server), expected)) {
      const why = await server.client.sandboxes.explain(id).then((e) => JSON.stringify(e), String)
      history.violated(`intent lost: ${text}\n    ${why}`)
    }
  }
  return performance.now() - began
}

/** No sandbox that nobody asked for, none twice, and the deleted ones readable as tombstones. */
export async function verifyIdentities(
  server: TestServer,
  history: History,
  others: ReadonlySet<string>,
): Promise<void> {
  for (const s of (await everything(server)).values())
    if (!history.sandboxes.has(s.id) && !others.has(s.id))
      history.violated(`${s.id} (${s.name}) exists, and no create of it was acknowledged`)
  for (const p of history.sandboxes.values()) {
    if (p.desired !== 'deleted') continue
    const live = await server.call('GET', `/sandboxes/${p.id}`)
    const stone = await server.call<Sandbox>('GET', `/sandboxes/${p.id}?includeDeleted=true`)
    if (live.status !== 404) history.violated(`${p.name} was deleted and answers ${live.status}`)
    if (stone.status !== 200 || stone.body.deletedAt === null)
      history.violated(`${p.name} was deleted and has no tombstone: ${stone.status}`)
  }
}

/** One instance per sandbox that has any, none of a deleted one. */
export async function verifyEngine(world: World, installation: string, history: History): Promise<void> {
  const instances = await world.instances(installation)
  for (const p of history.sandboxes.values()) {
    const have = instances.filter((i) => i.sandbox === p.id)
    const want = p.desired === 'deleted' ? 0 : 1
    // One that was updated while it was stopped has none until it is started.
    const mayLack = p.desired === 'stopped' && have.length === 0
    if (have.length !== want && !mayLack)
      history.violated(`${p.name} (${p.desired}) has ${have.length} instances on the engine`)
    const runs = have[0]?.running === true
    const mayRun = p.desired === 'running' || p.desired === 'paused'
    if (want === 1 && !mayLack && runs !== mayRun)
      history.violated(`${p.name} (${p.desired}) ${runs ? 'runs' : 'does not run'} on the engine`)
  }
}

interface Data {
  readonly sums: ReadonlyMap<string, string>
  readonly counter: string
  readonly ticks: string
  readonly starts: number
}

const SUMS =
  'cd /; for d in sandbox data; do for f in $d/payload-*; do case $f in *"*"|*.tmp) ;; *) [ -e "$f" ] && sha256sum "$f";; esac; done; done; true'

async function dataOfRunning(server: TestServer, id: string): Promise<Data> {
  const run = async (command: string): Promise<string> => {
    const { exitCode, stdout, stderr, lost } = await server.client.sandboxes.exec(id, { command })
    if (exitCode !== 0) throw new Error(`\`${command}\` ended with ${exitCode ?? lost}: ${stderr}`)
    return stdout
  }
  const sums = new Map<string, string>()
  for (const line of (await run(SUMS)).trim().split('\n')) {
    const [sum = '', path = ''] = line.split(/\s+/)
    if (path !== '') sums.set(`/${path}`, sum)
  }
  const counter = await run('cat /sandbox/counter.log 2>/dev/null || true')
  const ticks = await run('cat /sandbox/ticks.log')
  return { sums, counter, ticks, starts: Number(await run('wc -l < /sandbox/starts.log')) }
}

/** A stopped one is read through the archive, as `cp` does. */
async function dataOfStopped(server: TestServer, p: Promised): Promise<Data> {
  const sums = new Map<string, string>()
  let counter = ''
  let ticks = ''
  let starts = 0
  for (const dir of p.claim === null ? ['/sandbox'] : ['/sandbox', '/data']) {
    const tar = extract()
    Readable.fromWeb((await server.client.sandboxes.download(p.id, dir)) as never).pipe(tar)
    for await (const entry of tar) {
      const chunks: Buffer[] = []
      for await (const chunk of entry) chunks.push(chunk as Buffer)
      const content = Buffer.concat(chunks)
      const path = `/${entry.header.name.replace(/^\.?\//, '')}`
      if (/\/payload-[-\w]+$/.test(path)) sums.set(path, sha256(content))
      if (path === '/sandbox/counter.log') counter = content.toString()
      if (path === '/sandbox/ticks.log') ticks = content.toString()
      if (path === '/sandbox/starts.log') starts = content.toString().split('\n').length - 1
    }
  }
  return { sums, counter, ticks, starts }
}

function compare(p: Promised, data: Data, history: History): void {
  for (const [path, sum] of p.files)
    if (data.sums.get(path) !== sum)
      history.violated(
        `${p.name}: ${path} is ${data.sums.get(path) ?? 'missing'}, and ${sum} was acknowledged`,
      )
  const lines = data.counter.trim() === '' ? [] : data.counter.trim().split('\n').map(Number)
  if (new Set(lines).size !== lines.length)
    history.violated(`${p.name}: a line of its log is there twice: ${lines.join(' ')}`)
  for (const line of p.lines)
    if (!lines.includes(line))
      history.violated(`${p.name}: line ${line} of its log was acknowledged and is missing`)
  const ticks = data.ticks.split('\n').slice(0, -1).map(Number)
  const odd = ticks.findIndex((tick, i) => tick !== i + 1)
  if (odd >= 0)
    history.violated(
      `${p.name}: its own counter goes ${ticks.slice(Math.max(0, odd - 2), odd + 3).join(' ')}`,
    )
  if (data.starts > p.mayStart)
    history.violated(`${p.name}: it was started ${data.starts} times, and asked for ${p.mayStart} times`)
}

/** Every acknowledged file and line of every sandbox that still is. Resolves with how many files were compared. */
export async function verifyData(server: TestServer, history: History): Promise<number> {
  let files = 0
  for (const p of history.sandboxes.values()) {
    if (p.desired === 'deleted') continue
    try {
      if (p.desired === 'paused') {
        p.mayStart++
        await server.client.sandboxes.resume(p.id)
        await running(server, p.id)
      }
      const present = await server.client.sandboxes.get(p.id)
      const lacks = p.desired === 'stopped' && present.instance === null
      if (lacks) {
        p.mayStart++
        await server.client.sandboxes.start(p.id)
        await running(server, p.id)
      }
      compare(
        p,
        p.desired === 'stopped' && !lacks
          ? await dataOfStopped(server, p)
          : await dataOfRunning(server, p.id),
        history,
      )
      files += p.files.size
    } catch (error) {
      history.violated(`${p.name}: its data could not be read: ${String(error)}`)
    }
  }
  return files
}

/** What was on a retained claim is there for the next sandbox that mounts it. */
export async function verifyRetained(server: TestServer, world: World, history: History): Promise<number> {
  let volumes = 0
  for (const p of history.sandboxes.values()) {
    if (p.claim === null || p.desired !== 'deleted') continue
    try {
      const pvc = { claimName: p.claim, createIfNotExists: false }
      const made = await server.client.sandboxes.create({
        image: { uri: world.image },
        entrypoint: ['sleep', '1000'],
        stopGraceSeconds: 0,
        workspace: false,
        volumes: [{ name: 'data', mountPath: '/data', pvc }],
      })
      await running(server, made.id)
      const { stdout } = await server.client.sandboxes.exec(made.id, {
        command: 'cd /data && sha256sum payload-* 2>/dev/null || true',
      })
      for (const [path, sum] of p.files)
        if (path.startsWith('/data/') && !stdout.includes(sum))
          history.violated(`${p.claim}: ${path} did not outlive its sandbox`)
      await server.client.sandboxes.remove(made.id)
      volumes++
    } catch (error) {
      history.violated(`${p.claim}: could not be mounted again: ${String(error)}`)
    }
  }
  return volumes
}

/** Once everything is as promised, nothing more is done (DESIGN §1.6). */
export async function verifyStillness(server: TestServer, history: History): Promise<void> {
  // A volume that was half seeded goes only once no create can land on it any more: that is one limit later.
  for (let window = 1; ; window++) {
    const before = JSON.stringify(await server.steps())
    await delay(STILL_MS)
    const after = JSON.stringify(await server.steps())
    if (before === after) break
    if (window === STILL_WINDOWS) {
      history.violated(`it does not stay still: ${before} became ${after}`)
      break
    }
  }
  const audit = await server.client.audit()
  if (!audit.ok) history.violated(`the audit is not clean: ${JSON.stringify(audit.findings)}`)
}

/** Deletes all there is, and looks for what stayed. */
export async function verifyNothingStays(
  server: TestServer,
  world: World,
  installation: string,
  history: History,
): Promise<void> {
  const ids = new Set(history.sandboxes.keys())
  for (const s of await server.client.sandboxes.list()) {
    ids.add(s.id)
    await server.client.sandboxes.remove(s.id)
  }
  const left = async (): Promise<Record<string, number>> => ({
    sandboxes: (await server.client.sandboxes.list()).length,
    instances: (await world.instances(installation)).length,
    volumes: (await world.volumes(installation)).length,
    openSteps: (await server.client.audit()).counts['openSteps'] ?? -1,
    mounts: mountsBelow(server.stateDir).length,
    processes: processesOf(ids).length,
  })
  try {
    await until(
      'no sandbox is left',
      WIPE_LIMIT_MS,
      async () => (await server.client.sandboxes.list()).length === 0,
    )
    // The others go with their sandboxes, and may be gone by now.
    for (const v of await server.client.volumes.list())
      if (v.retention === 'retain') await server.client.volumes.remove(v.uid)
    await until('nothing is left', WIPE_LIMIT_MS, async () =>
      Object.values(await left()).every((n) => n === 0),
    )
  } catch (error) {
    history.violated(`${String(error)}: ${JSON.stringify(await left().catch(String))}`)
  }
  const audit = await server.client.audit()
  if (!audit.ok) history.violated(`the last audit is not clean: ${JSON.stringify(audit.findings)}`)
}
