import type { AddressInfo } from 'node:net'
import { buildApp } from './app.ts'
import type { App, Context } from './context.ts'
import type { Address, ApiDeps } from './deps.ts'
import { createKeyRing } from './keys.ts'

export { createEventBell, ringOnEvents } from './bell.ts'
export { formatAddress, isLoopback, parseAddress } from './address.ts'
export type { Address, ApiConfig, ApiDeps, EventBell, Tls } from './deps.ts'

/** How long open requests may go on after a close was asked for, milliseconds. */
const DRAIN_MS = 5_000

export interface Api {
  readonly app: App
  /** Begins to listen; answers where. Throws `ADDRESS_IN_USE`. */
  listen(): Promise<{ api: Address; proxy: Address }>
  /** Takes no new request, ends streams, lets the others finish. */
  close(): Promise<void>
}

export function createApi(deps: ApiDeps): Api {
  const closing = new AbortController()
  let addresses = { api: deps.config.listen, proxy: deps.config.proxyListen }
  const ctx: Context = {
    ...deps,
    keys: createKeyRing(deps.store, deps.clock),
    closing: closing.signal,
    addresses: () => addresses,
  }
  const app = buildApp(ctx)
  return {
    app,
    async listen() {
      await app.listen({ host: deps.config.listen.host, port: deps.config.listen.port })
      addresses = { ...addresses, api: bound(deps.config.listen, app.server.address()) }
      return addresses
    },
    async close() {
      closing.abort(new Error('the server is closing'))
      const cancel = deps.clock.after(DRAIN_MS, () => app.server.closeAllConnections())
      try {
        await app.close()
      } finally {
        cancel()
      }
    },
  }
}

/** The configured host with the port that the system gave. */
function bound(asked: Address, got: AddressInfo | string | null): Address {
  return got === null || typeof got === 'string' ? asked : { host: asked.host, port: got.port }
}
