import type {
  Audit,
  CreateSandbox,
  CreateVolume,
  CreatedSandbox,
  Endpoint,
  EngineInfo,
  Event,
  ExecRequest,
  ExecResult,
  Explanation,
  Page,
  PortLink,
  Sandbox,
  ServerInfo,
  Stats,
  UpdateSandbox,
  Volume,
} from './types.ts'

interface Answer<T> {
  headers: Record<string, unknown>
  content: { 'application/json': T }
}
interface Empty {
  headers: Record<string, unknown>
  content?: never
}
type Parameters<P, Q, H> = ([P] extends [never] ? { path?: never } : { path: P }) & {
  query?: Q
  header?: H
  cookie?: never
}
type Body<B> = [B] extends [never]
  ? { requestBody?: never }
  : { requestBody: { content: { 'application/json': B } } }
/** Path parameters, query, body, answer and headers of one operation, in the form that openapi-fetch reads. */
type Op<P, Q, B, R, H = never> = { parameters: Parameters<P, Q, H>; responses: { 200: R } } & Body<B>
type Id = { id: string }
type Keyed = { 'Idempotency-Key'?: string }
type Intent = { post: Op<Id, never, never, Empty, Keyed> }

/** The routes that answer JSON; streams are opened by hand. */
export interface ApiPaths {
  '/v1/sandboxes': {
    get: Op<
      never,
      { state?: string[]; metadata?: string; page?: number; pageSize?: number; includeDeleted?: boolean },
      never,
      Answer<Page<Sandbox>>
    >
    post: Op<never, never, CreateSandbox, Answer<CreatedSandbox>, Keyed>
  }
  '/v1/sandboxes/{id}': {
    get: Op<Id, { includeDeleted?: boolean }, never, Answer<Sandbox>>
    delete: Op<Id, never, never, Empty>
    patch: Op<Id, never, UpdateSandbox, Answer<Sandbox>>
  }
  '/v1/sandboxes/{id}/metadata': { patch: Op<Id, never, Record<string, string | null>, Answer<Sandbox>> }
  '/v1/sandboxes/{id}/start': Intent
  '/v1/sandboxes/{id}/stop': Intent
  '/v1/sandboxes/{id}/restart': Intent
  '/v1/sandboxes/{id}/pause': Intent
  '/v1/sandboxes/{id}/resume': Intent
  '/v1/sandboxes/{id}/recover': Intent
  '/v1/sandboxes/{id}/renew-expiration': {
    post: Op<Id, never, { expiresAt: string }, Answer<{ expiresAt: string }>>
  }
  '/v1/sandboxes/{id}/endpoints/{port}': {
    get: Op<
      { id: string; port: number },
      { use_server_proxy?: boolean; expires?: number },
      never,
      Answer<Endpoint>
    >
  }
  '/v1/sandboxes/{id}/ports/{port}/link': {
    post: Op<{ id: string; port: number }, never, { expiresInSeconds?: number }, Answer<PortLink>>
  }
  '/v1/sandboxes/{id}/explain': { get: Op<Id, never, never, Answer<Explanation>> }
  '/v1/sandboxes/{id}/stats': { get: Op<Id, never, never, Answer<Stats>> }
  '/v1/sandboxes/{id}/exec': { post: Op<Id, never, ExecRequest & { stdin?: string }, Answer<ExecResult>> }
  '/v1/resolve': { get: Op<never, { ref: string }, never, Answer<{ id: string }>> }
  '/v1/volumes': {
    get: Op<
      never,
      { page?: number; pageSize?: number; includeRemoved?: boolean },
      never,
      Answer<Page<Volume>>
    >
    post: Op<never, never, CreateVolume, Answer<Volume>, Keyed>
  }
  '/v1/volumes/{id}': {
    get: Op<Id, never, never, Answer<Volume>>
    delete: Op<Id, never, never, Answer<{ uid: string; state: string }>>
  }
  '/v1/events': {
    get: Op<
      never,
      { sandbox?: string; volume?: string; after?: number; limit?: number },
      never,
      Answer<{ items: Event[] }>
    >
  }
  '/v1/audit': { get: Op<never, never, never, Answer<Audit>> }
  '/v1/engines': { get: Op<never, never, never, Answer<{ items: EngineInfo[] }>> }
  '/v1/info': { get: Op<never, never, never, Answer<ServerInfo>> }
  '/health': { get: Op<never, never, never, Answer<{ status: string }>> }
}
