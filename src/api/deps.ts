import type { Logger } from 'pino'
import type { EngineHost } from '../engines/host.ts'
import type { Guest } from '../guest/guest.ts'
import type { Clock } from '../model/clock.ts'
import type { Ids } from '../model/ids.ts'
import type { Controller } from '../reconcile/controller.ts'
import type { Store } from '../store/store.ts'

export interface Address {
  readonly host: string
  /** 0 lets the system choose; `listen()` answers the one in use. */
  readonly port: number
}

export interface Tls {
  /** PEM. */
  readonly cert: string | Buffer
  readonly key: string | Buffer
}

export interface ApiConfig {
  readonly listen: Address
  /** What sandboxes serve comes from this second origin (DESIGN §6). */
  readonly proxyListen: Address
  /** Names, beside loopback and the listen address, that the `Host` header may carry. */
  readonly allowedHosts: readonly string[]
  /** Prefixes under which host paths may be mounted; empty means none. */
  readonly allowedHostPaths: readonly string[]
  /** Browser links are `<id>-<port>.<proxyDomain>`; `localhost` by default. */
  readonly proxyDomain?: string | undefined
  readonly stateDir: string
  readonly tls?: Tls | undefined
}

/** Rung after each commit that appended events, so that followers need not poll. A missed ring costs a second, never an event. */
export interface EventBell {
  /** Resolves at the next ring, or when the signal is aborted. */
  wait(signal: AbortSignal): Promise<void>
}

export interface ApiDeps {
  readonly store: Store
  readonly clock: Clock
  readonly ids: Ids
  readonly engines: EngineHost
  readonly controller: Controller
  readonly guest: Guest
  readonly bell: EventBell
  readonly config: ApiConfig
  readonly logger: Logger
  readonly version: string
  /** Milliseconds since the epoch. */
  readonly startedAt: number
}
