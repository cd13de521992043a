import type { components, paths } from './generated.ts'

/**
 * What goes over the wire, from the OpenAPI document (`npm run generate`). Times are RFC 3339 strings; a state or
 * reason that a newer server adds is just a string.
 */
type Schemas = components['schemas']

export type Sandbox = Schemas['Sandbox']
export type Status = Sandbox['status']
export type SandboxVolume = Sandbox['volumes'][number]
export type ExitInfo = NonNullable<Sandbox['lastExit']>
export type CreatedSandbox = Schemas['CreatedSandbox']
export type UpdateSandbox = Schemas['UpdateSandboxInput']
export type Explanation = Schemas['Explanation']
export type Volume = Schemas['Volume']
export type Event = Schemas['Event']
export type Audit = Schemas['Audit']
export type Recovery = Schemas['Recovery']
export type Hold = Schemas['Hold']
export type Finding = Audit['findings'][number]
export type EngineInfo = Schemas['Engine']
export type Pagination = Schemas['Pagination']

type CreateInput = Schemas['CreateSandboxInput']
/** Made from an image. */
export type CreateSandbox = CreateInput & { readonly image: NonNullable<CreateInput['image']> }
export type VolumeRequest = NonNullable<CreateInput['volumes']>[number]

type Json<T> = T extends { content: { 'application/json': infer R } } ? R : never
type Answer<P extends keyof paths, M extends keyof paths[P], S extends number> = paths[P][M] extends {
  responses: infer R
}
  ? S extends keyof R
    ? Json<R[S]>
    : never
  : never
type Body<P extends keyof paths, M extends keyof paths[P]> = paths[P][M] extends { requestBody?: infer B }
  ? Json<NonNullable<B>>
  : never

export type Stats = Answer<'/v1/sandboxes/{id}/stats', 'get', 200>
export type ExecResult = Answer<'/v1/sandboxes/{id}/exec', 'post', 200>
export type PortLink = Answer<'/v1/sandboxes/{id}/ports/{port}/link', 'post', 200>
export type Endpoint = Answer<'/v1/sandboxes/{id}/endpoints/{port}', 'get', 200>
export type ServerInfo = Answer<'/v1/info', 'get', 200>
export type CreateVolume = Body<'/v1/volumes', 'post'>

export interface Page<T> {
  readonly items: T[]
  readonly pagination: Pagination
}

/** A command, for both ways to run one. */
export type ExecRequest = Omit<Body<'/v1/sandboxes/{id}/exec', 'post'>, 'stdin'>
