import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { KeyRing } from './keys.ts'
import type { LinkSigner } from './ports.ts'
import type { Address, ApiDeps } from './deps.ts'

export type App = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  ZodTypeProvider
>

/** What every route gets. */
export interface Context extends ApiDeps {
  readonly keys: KeyRing
  readonly links: LinkSigner
  /** Aborted when the server begins to close: streams that would never end do then. */
  readonly closing: AbortSignal
  /** Per connection, aborted when it closes: one listener however many requests come over it. */
  readonly gone: WeakMap<object, AbortSignal>
  /** Where the listeners really are, once they listen. */
  addresses(): { readonly api: Address; readonly proxy: Address }
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** No key needed. */
    open?: boolean
    /** Records an intent, so an Idempotency-Key is taken. */
    intent?: boolean
  }
  interface FastifyRequest {
    /** Id of the API key that was sent. */
    keyId: string
  }
}
