import assert from 'node:assert/strict'
import type { CreateSandbox, Sandbox } from '@holdfast/client'
import type { TestServer } from '../support/server.ts'
import { sha256, WORKLOAD } from './model.ts'
import { until } from './until.ts'
import type { Rig } from './world.ts'

/** Until a sandbox is as asked; with room for backoffs after an engine was away, ms. */
const STATE_LIMIT_MS = 60_000
const FILE = '/sandbox/kept.bin'

export async function read(server: TestServer, id: string): Promise<Sandbox> {
  const { status, body } = await server.call<Sandbox>('GET', `/sandboxes/${id}`)
  assert.equal(status, 200, `GET of ${id} answered ${status}: ${JSON.stringify(body)}`)
  return body
}

/** Waits until what was asked for last is applied and the sandbox shows this state. */
export async function reach(
  server: TestServer,
  id: string,
  state: string,
  limitMs: number = STATE_LIMIT_MS,
): Promise<Sandbox> {
  return until(
    `${id} is ${state}`,
    limitMs,
    async () => {
      const s = await read(server, id)
      return s.status.state === state &&
        (s.generation === s.observedGeneration || state === 'Lost' || state === 'Blocked')
        ? s
        : null
    },
    async () => JSON.stringify(await server.client.sandboxes.explain(id)),
  )
}

export async function gone(server: TestServer, id: string, limitMs: number = STATE_LIMIT_MS): Promise<void> {
  await until(`${id} is gone`, limitMs, async () => {
    const { status, body } = await server.call<Sandbox>('GET', `/sandboxes/${id}?includeDeleted=true`)
    return status === 200 && body.deletedAt !== null
  })
}

/** Makes a sandbox and waits until it runs. */
export async function make(
  { server, world }: Rig,
  name: string,
  over: Partial<CreateSandbox> = {},
): Promise<Sandbox> {
  const { id } = await server.client.sandboxes.create({
    name,
    image: { uri: world.image },
    entrypoint: [...WORKLOAD],
    stopGraceSeconds: 2,
    ...over,
  })
  return reach(server, id, 'Running')
}

export async function run(server: TestServer, id: string, command: string, stdin?: string): Promise<string> {
  const { exitCode, stdout, stderr, lost } = await server.client.sandboxes.exec(id, {
    command,
    ...(stdin === undefined ? {} : { stdin }),
  })
  assert.equal(exitCode, 0, `\`${command}\` in ${id} ended with ${exitCode ?? lost}: ${stderr}`)
  return stdout
}

/** Data that is told apart by the sandbox's id. Resolves with its checksum. */
export async function putData(server: TestServer, id: string): Promise<string> {
  const data = `${id}\n`.repeat(2_000)
  await run(server, id, `cat > ${FILE}`, data)
  return sha256(data)
}

export async function assertData(server: TestServer, id: string, sum: string): Promise<void> {
  const found = await run(server, id, `sha256sum < ${FILE}`)
  assert.ok(found.startsWith(sum), `the data of ${id} reads as ${found.trim()}, not ${sum}`)
}

export async function startsOf(server: TestServer, id: string): Promise<number> {
  return Number(await run(server, id, 'wc -l < /sandbox/starts.log'))
}

export function engineId(s: Sandbox): string {
  assert.ok(s.instance?.engineId, `${s.id} has no instance`)
  return s.instance.engineId
}

export const workspaceUid = (s: Sandbox): string => s.volumes.find((v) => v.kind === 'workspace')?.uid ?? ''

/** Deletes all sandboxes and looks at the engine itself. */
export async function leaveNothing({ server, world }: Rig): Promise<void> {
  const { installation } = await server.client.info()
  for (const s of await server.client.sandboxes.list()) await server.client.sandboxes.remove(s.id)
  await until('nothing is left on the engine', STATE_LIMIT_MS, async () => {
    const audit = await server.client.audit()
    const left = [...(await world.instances(installation)), ...(await world.volumes(installation))]
    return left.length === 0 && audit.ok && audit.counts['openSteps'] === 0
  })
}

/** A script's body: runs the acts on one rig, tells of each, and ends the process with 0 or 1. */
export async function perform(
  title: string,
  rig: Rig,
  acts: readonly (readonly [string, (rig: Rig) => Promise<void>])[],
): Promise<number> {
  let failed = 0
  try {
    for (const [name, act] of acts) {
      const began = performance.now()
      const error = await act(rig).then(
        () => null,
        (e: unknown) => (e instanceof Error ? (e.stack ?? e.message) : String(e)),
      )
      if (error !== null) failed++
      process.stdout.write(
        `${error === null ? 'ok  ' : 'FAIL'} ${title}: ${name} (${((performance.now() - began) / 1000).toFixed(1)} s)\n`,
      )
      if (error !== null) process.stderr.write(`${error}\n${rig.server.log()}\n`)
    }
  } finally {
    await rig.destroy()
  }
  process.stdout.write(`${title} on ${rig.world.kind}: ${acts.length - failed} passed, ${failed} failed\n`)
  return failed === 0 ? 0 : 1
}

export function engineFlag(args: readonly string[]): 'docker' | 'local' {
  const at = args.indexOf('--engine')
  return at >= 0 && args[at + 1] === 'local' ? 'local' : 'docker'
}
