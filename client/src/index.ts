export {
  createClient,
  metadataFilter,
  type Client,
  type ClientOptions,
  type IntentOptions,
  type ListQuery,
  type LogQuery,
} from './client.ts'
export { ApiError, clientError, errorFromAnswer, exitCodeFor } from './errors.ts'
export type { ExecExit, ExecOptions, ExecSession, ExecSignal } from './exec.ts'
export type { EventQuery } from './follow.ts'
export type { LogLine } from './streams.ts'
export type * from './types.ts'
