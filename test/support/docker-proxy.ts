import { connect, createServer, type Socket } from 'node:net'
import { rm } from 'node:fs/promises'

export interface ProxyHooks {
  /** Gets the first bytes of each request as text; true when it has dealt with the client itself. */
  onRequest?: (request: string, client: Socket) => boolean
  /** Holds what the engine sends for this long and sends it in one piece, milliseconds. */
  holdMs?: number
}

export interface Proxy {
  readonly host: string
  readonly hooks: ProxyHooks
  close(): Promise<void>
}

/** Between the driver and a real Docker: what networks and other people's proxies do to a connection. */
export async function startDockerProxy(
  path: string,
  upstream: string,
  hooks: ProxyHooks = {},
): Promise<Proxy> {
  const open = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const engine = connect({ path: upstream, allowHalfOpen: true })
    for (const socket of [client, engine]) {
      open.add(socket)
      socket.on('error', () => socket.destroy())
      socket.once('close', () => open.delete(socket))
    }
    client.on('data', (chunk) => {
      if (hooks.onRequest?.(chunk.toString('latin1'), client) !== true) engine.write(chunk)
    })
    client.once('end', () => engine.end())
    client.once('close', () => engine.destroy())
    let held: Buffer[] = []
    engine.on('data', (chunk: Buffer) => {
      if (hooks.holdMs === undefined) return void client.write(chunk)
      if (held.length === 0)
        setTimeout(() => {
          client.write(Buffer.concat(held))
          held = []
        }, hooks.holdMs)
      held.push(chunk)
    })
    engine.once('end', () => setTimeout(() => client.end(), hooks.holdMs ?? 0))
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
  return {
    host: `unix://${path}`,
    hooks,
    async close() {
      for (const socket of open) socket.destroy()
      await new Promise<void>((resolve) => server.close(() => resolve()))
      await rm(path, { force: true })
    },
  }
}
