import { connect, createServer, type Socket } from 'node:net'
import { rm } from 'node:fs/promises'

export interface ProxyHooks {
  /** Gets the first bytes of each request as text; true when it has dealt with the client itself. */
  onRequest?: (request: string, client: Socket) => boolean
  /** Holds what the engine sends for this long and sends it in one piece, milliseconds. */
  holdMs?: number
  /** True: nothing passes in either direction until it is false again. What a client that left had sent is dropped. */
  hang?: boolean
  /** True for a request whose effect happens and whose answer never comes: the connection breaks instead. */
  losesAnswer?: (request: string) => boolean
  /** True for a request whose answer stops coming while the connection stays open. */
  mutes?: (request: string) => boolean
}

export interface Proxy {
  readonly host: string
  readonly hooks: ProxyHooks
  /** Breaks all connections, or those whose last request fits. Resolves with how many there were. */
  cut(fits?: (request: string) => boolean): number
  close(): Promise<void>
}

/** Between two looks at whether a hang is over, milliseconds. */
const LOOK_EVERY_MS = 20
const REQUEST = /^(?:GET|HEAD|POST|PUT|DELETE) \S+/

/** One direction of a connection: what came in, in order, until it may go on. */
function valve(to: Socket, hooks: ProxyHooks, holdMs: () => number): (chunk: Buffer | null) => void {
  const waiting: { readonly chunk: Buffer | null; readonly dueAt: number }[] = []
  let timer: NodeJS.Timeout | null = null
  const flush = (): void => {
    timer = null
    const now = performance.now()
    while (hooks.hang !== true && (waiting[0]?.dueAt ?? Number.POSITIVE_INFINITY) <= now) {
      const chunk = waiting.shift()?.chunk ?? null
      if (to.destroyed) continue
      if (chunk === null) to.end()
      else to.write(chunk)
    }
    if (waiting.length > 0 && !to.destroyed) timer = setTimeout(flush, LOOK_EVERY_MS)
  }
  return (chunk) => {
    waiting.push({ chunk, dueAt: performance.now() + holdMs() })
    if (timer === null) flush()
  }
}

/** Between the driver and a real Docker: what networks and other people's proxies do to a connection. */
export async function startDockerProxy(
  path: string,
  upstream: string,
  hooks: ProxyHooks = {},
): Promise<Proxy> {
  /** Each client's connection with its last request. */
  const open = new Map<Socket, { engine: Socket; request: string }>()
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const engine = connect({ path: upstream, allowHalfOpen: true })
    const state = { engine, request: '' }
    open.set(client, state)
    for (const socket of [client, engine]) socket.on('error', () => socket.destroy())
    const toEngine = valve(engine, hooks, () => 0)
    const toClient = valve(client, hooks, () => hooks.holdMs ?? 0)
    client.on('data', (chunk) => {
      const text = chunk.toString('latin1')
      if (REQUEST.test(text)) state.request = text
      if (hooks.onRequest?.(text, client) !== true) toEngine(chunk)
    })
    client.once('end', () => toEngine(null))
    client.once('close', () => {
      open.delete(client)
      engine.destroy()
    })
    engine.on('data', (chunk: Buffer) => {
      if (hooks.losesAnswer?.(state.request) === true) client.destroy()
      else if (hooks.mutes?.(state.request) !== true) toClient(chunk)
    })
    engine.once('end', () => toClient(null))
    engine.once('close', () => toClient(null))
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
  return {
    host: `unix://${path}`,
    hooks,
    cut(fits = () => true) {
      const victims = [...open].filter(([, { request }]) => fits(request))
      for (const [client] of victims) client.destroy()
      return victims.length
    },
    async close() {
      for (const client of open.keys()) client.destroy()
      await new Promise<void>((resolve) => server.close(() => resolve()))
      await rm(path, { force: true })
    },
  }
}
