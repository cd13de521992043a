import { bound, inUse } from './address.ts'
import { createEventBell, ringOnEvents } from './bell.ts'
import { buildApp } from './app.ts'
import type { App, Context } from './context.ts'
import type { Address, ApiDeps } from './deps.ts'
import { createKeyRing } from './keys.ts'
import { createLinkSigner } from './ports.ts'
import { createProxy, type Proxy } from './proxy/index.ts'

export { createEventBell, ringOnEvents } from './bell.ts'
export { formatAddress, isLoopback, parseAddress } from './address.ts'
export type { Address, ApiConfig, ApiDeps, EventBell, Tls } from './deps.ts'

/** How long open requests may go on after a close was asked for, milliseconds. */
const DRAIN_MS = 5_000

export interface Api {
  readonly app: App
  /** What sandboxes serve, on an origin of its own. */
  readonly proxy: Proxy
  /** Begins to listen; answers where. Throws `ADDRESS_IN_USE`. */
  listen(): Promise<{ api: Address; proxy: Address }>
  /** Takes no new request, ends streams, lets the others finish. */
  close(): Promise<void>
}

/** Derives what all routes share. `addresses` is what the listeners have become. */
export function createContext(deps: ApiDeps, closing: AbortSignal, addresses: Context['addresses']): Context {
  // What the API itself appends is heard at once, whoever rings the bell for the rest.
  const own = createEventBell()
  return {
    ...deps,
    store: ringOnEvents(deps.store, own),
    bell: { wait: (signal) => Promise.race([own.wait(signal), deps.bell.wait(signal)]) },
    keys: createKeyRing(deps.store, deps.clock),
    links: createLinkSigner(deps.store, deps.ids),
    closing,
    gone: new WeakMap(),
    addresses,
  }
}

export function createApi(deps: ApiDeps): Api {
  const closing = new AbortController()
  let addresses = { api: deps.config.listen, proxy: deps.config.proxyListen }
  const ctx = createContext(deps, closing.signal, () => addresses)
  const app = buildApp(ctx)
  const proxy = createProxy(ctx)
  return {
    app,
    proxy,
    async listen() {
      // The proxy first: once the API answers, the links that it gives work.
      const proxyAt = await proxy.listen()
      try {
        await app.listen(deps.config.listen)
      } catch (error) {
        await proxy.close()
        throw inUse(error, deps.config.listen)
      }
      addresses = { api: bound(deps.config.listen, app.server.address()), proxy: proxyAt }
      return addresses
    },
    async close() {
      closing.abort(new Error('the server is closing'))
      const cancel = deps.clock.after(DRAIN_MS, () => app.server.closeAllConnections())
      try {
        await Promise.all([app.close(), proxy.close()])
      } finally {
        cancel()
      }
    },
  }
}
