import type { Sandbox } from '@holdfast/client'
import type { TestServer } from '../support/server.ts'
import { type History, sha256, WORKLOAD } from './model.ts'
import { until } from './until.ts'
import type { Life, World } from './world.ts'

const RUNNING_LIMIT_MS = 30_000
const DATA = 'what nobody touches stays\n'
const FILE = '/sandbox/witness.txt'

export interface Witness {
  readonly id: string
  readonly name: string
  readonly life: Life
  /** Its user stopped it: it stays so. */
  readonly stopped: boolean
}

export async function running(
  server: TestServer,
  id: string,
  limitMs: number = RUNNING_LIMIT_MS,
): Promise<Sandbox> {
  const read = async (): Promise<Sandbox> => (await server.call<Sandbox>('GET', `/sandboxes/${id}`)).body
  return until(
    `${id} runs`,
    limitMs,
    async () => {
      const s = await read()
      return s.status.state === 'Running' && s.generation === s.observedGeneration ? s : null
    },
    async () => JSON.stringify((await read()).status),
  )
}

/** Sandboxes that no client touches: the same life of the same instance from begin to end. */
export async function plantWitnesses(server: TestServer, world: World): Promise<Witness[]> {
  const witnesses: Witness[] = []
  for (const restartPolicy of ['no', 'always', 'on-failure']) {
    const made = await server.client.sandboxes.create({
      name: `witness-${restartPolicy}`,
      image: { uri: world.image },
      entrypoint: [...WORKLOAD],
      restartPolicy,
    })
    const { instance } = await running(server, made.id)
    await server.client.sandboxes.exec(made.id, { command: `cat > ${FILE}`, stdin: DATA })
    const life = await world.life(instance?.engineId ?? '')
    if (life === null) throw new Error(`the engine does not know ${instance?.engineId}`)
    witnesses.push({ id: made.id, name: made.name ?? '', life, stopped: false })
  }
  return [...witnesses, await plantStopped(server, world)]
}

/** Stopped by its user, although its policy would start it again. */
async function plantStopped(server: TestServer, world: World): Promise<Witness> {
  const made = await server.client.sandboxes.create({
    name: 'witness-stopped',
    image: { uri: world.image },
    entrypoint: [...WORKLOAD],
    restartPolicy: 'always',
    stopGraceSeconds: 2,
  })
  const { instance } = await running(server, made.id)
  await server.client.sandboxes.stop(made.id)
  await until('the witness is stopped', RUNNING_LIMIT_MS, async () => {
    const { status, generation, observedGeneration } = await server.client.sandboxes.get(made.id)
    return status.state === 'Stopped' && generation === observedGeneration
  })
  const life = await world.life(instance?.engineId ?? '')
  if (life === null) throw new Error(`the engine does not know ${instance?.engineId}`)
  return { id: made.id, name: made.name ?? '', life, stopped: true }
}

export async function hearWitnesses(
  server: TestServer,
  world: World,
  witnesses: readonly Witness[],
  history: History,
): Promise<void> {
  for (const w of witnesses) {
    const now = await world.life(w.life.id)
    if (JSON.stringify(now) !== JSON.stringify(w.life))
      history.violated(`${w.name} was touched: ${JSON.stringify(w.life)} became ${JSON.stringify(now)}`)
    if (w.stopped) {
      const { status } = await server.client.sandboxes.get(w.id)
      if (status.state !== 'Stopped') history.violated(`${w.name} is ${status.state}`)
      continue
    }
    const { instance } = await running(server, w.id)
    if (instance?.engineId !== w.life.id)
      history.violated(`${w.name}: the API tells of instance ${instance?.engineId}, not ${w.life.id}`)
    const { stdout } = await server.client.sandboxes.exec(w.id, {
      command: `sha256sum < ${FILE}; wc -l < /sandbox/starts.log`,
    })
    const [sum = '', starts = ''] = stdout.trim().split('\n')
    if (!sum.startsWith(sha256(DATA))) history.violated(`${w.name}: its data reads as ${sum}`)
    if (starts.trim() !== '1') history.violated(`${w.name}: its process was started ${starts.trim()} times`)
  }
}
