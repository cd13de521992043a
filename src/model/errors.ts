/**
 * The one table of errors: code → HTTP status, exit code, what happened, what it means for the data, and the next
 * command. API, client and CLI all read it; nothing else invents a code.
 */

interface Entry<C> {
  /** HTTP status. */
  readonly status: number
  /** The CLI's exit code: 1, 2 usage, 3 not found, 4 conflict, 5 unreachable, 124 timeout. */
  readonly exit: number
  readonly message: (c: C) => string
  readonly suggestion?: (c: C) => string
  /** The code that goes over the wire where the upstream protocol has one of its own for the case. */
  readonly wire?: ErrorCode
}

export interface FieldIssue {
  /** Path of the field, as `volumes[0].mountPath`. */
  readonly path: string
  readonly message: string
}

/** What each code needs to build its message. */
export interface ErrorContexts {
  MISSING_API_KEY: Record<never, never>
  INVALID_API_KEY: Record<never, never>
  FORBIDDEN_HOST: { host: string }
  INVALID_REQUEST: { issues: readonly FieldIssue[] }
  INVALID_METADATA_FORMAT: { detail: string }
  UNSUPPORTED_MEDIA_TYPE: { got: string; want: string }
  PAYLOAD_TOO_LARGE: { limitBytes: number }
  'SANDBOX::INVALID_PARAMETER': { issues: readonly FieldIssue[] }
  'SANDBOX::NOT_FOUND': { id: string }
  'SANDBOX::AMBIGUOUS': { given: string; matches: readonly string[] }
  'SANDBOX::NAME_TAKEN': { name: string; id: string }
  'SANDBOX::INVALID_STATE': { id: string; state: string; action: string; possible: readonly string[] }
  'SANDBOX::NOT_RUNNING': { id: string; state: string }
  'SANDBOX::NEVER_EXPIRES': { id: string }
  'VOLUME::NOT_FOUND': { id: string }
  'VOLUME::CLAIM_NOT_FOUND': { claim: string }
  'VOLUME::CLAIM_TAKEN': { claim: string }
  'VOLUME::OWNED': { claim: string; owner: string }
  'VOLUME::IN_USE': { claim: string; holders: readonly string[] }
  'VOLUME::REMOVING': { claim: string }
  'HOST_PATH::NOT_ALLOWED': { field: string; path: string }
  IDEMPOTENCY_MISMATCH: { key: string }
  IDEMPOTENCY_UNSUPPORTED: { route: string }
  ROUTE_NOT_FOUND: { method: string; path: string }
  UNSUPPORTED: { what: string; engine: string }
  NOT_IMPLEMENTED: { what: string; detail: string }
  SERVICE_UNAVAILABLE: { detail: string }
  ENGINE_UNREACHABLE: { engine: string; detail: string }
  ENGINE_FAILED: { engine: string; detail: string }
  STORE_FAILED: { detail: string }
  STATE_LOCKED: { dir: string; holder: string }
  INSTALLATION_RUNNING: { dir: string; holder: string }
  STORE_TOO_NEW: { found: number; known: number; path: string }
  STORE_ENGINE_MISMATCH: { stored: string; asked: string }
  /** `current` is null when this process lost its lock or its files, and who took over cannot be read. */
  FENCED: { mine: number; current: number | null }
  ROW_UNREADABLE: { table: string; id: string; detail: string }
  REMOVALS_HELD: { id: string; cause: string; since: string }
  STATE_EMPTY: { dir: string }
  STATE_NOT_EMPTY: { dir: string }
  BACKUP_EXISTS: { path: string }
  BACKUP_FAILED: { detail: string }
  BACKUP_INVALID: { path: string; detail: string }
  NOTHING_TO_REBUILD: { engine: string; installation: string | null }
  SEVERAL_INSTALLATIONS: { engine: string; found: readonly string[] }
  NO_ENGINE: { looked: readonly string[] }
  CONFIG_INVALID: { source: string; issues: readonly FieldIssue[] }
  LISTEN_UNSAFE: { address: string }
  ADDRESS_IN_USE: { address: string }
  SERVER_UNREACHABLE: { url: string; detail: string }
  EXEC_FAILED: { id: string; detail: string }
  EXEC_NO_SHELL: { id: string }
  LANE_LOST: { id: string; detail: string }
  PATH_NOT_FOUND: { id: string; path: string }
  PORT_REFUSED: { id: string; port: number; detail: string }
  TIMEOUT: { what: string; afterMs: number }
  INTERNAL: { requestId: string }
}

export type ErrorCode = keyof ErrorContexts

const list = (issues: readonly FieldIssue[]): string =>
  issues.map((i) => (i.path === '' ? i.message : `${i.path}: ${i.message}`)).join('; ')

const TABLE: { readonly [K in ErrorCode]: Entry<ErrorContexts[K]> } = {
  MISSING_API_KEY: {
    status: 401,
    exit: 1,
    message: () => 'No API key was sent. Nothing was read or changed.',
    suggestion: () =>
      'Send the header OPEN-SANDBOX-API-KEY, or set HOLDFAST_API_KEY. The key was printed when the server first started.',
  },
  INVALID_API_KEY: {
    status: 401,
    exit: 1,
    message: () => 'The API key is not one of this server. Nothing was read or changed.',
    suggestion: () => 'Check HOLDFAST_API_KEY, and that the CLI and the server use the same state directory.',
  },
  FORBIDDEN_HOST: {
    status: 403,
    exit: 1,
    message: (c) =>
      `The Host header "${c.host}" is not one that this server answers to. Nothing was read or changed.`,
    suggestion: () =>
      'Use the address the server listens on, or add the name to `allowedHosts` in its configuration.',
  },
  INVALID_REQUEST: {
    status: 400,
    exit: 2,
    message: (c) => `The request is not valid: ${list(c.issues)}. Nothing was changed.`,
  },
  INVALID_METADATA_FORMAT: {
    status: 400,
    exit: 2,
    message: (c) => `The metadata filter is not valid: ${c.detail}. Nothing was changed.`,
    suggestion: () => 'Write it as metadata=key%3Dvalue%26key2%3Dvalue2.',
  },
  UNSUPPORTED_MEDIA_TYPE: {
    status: 415,
    exit: 2,
    message: (c) => `The body's content type is "${c.got}", not ${c.want}. Nothing was changed.`,
  },
  PAYLOAD_TOO_LARGE: {
    status: 413,
    exit: 2,
    message: (c) => `The body is larger than ${c.limitBytes} bytes. Nothing was changed.`,
  },
  'SANDBOX::INVALID_PARAMETER': {
    status: 400,
    exit: 2,
    message: (c) => `The sandbox cannot be made like this: ${list(c.issues)}. Nothing was created.`,
  },
  'SANDBOX::NOT_FOUND': {
    status: 404,
    exit: 3,
    message: (c) => `There is no sandbox "${c.id}".`,
    suggestion: () => 'List them with `holdfast ls`; deleted ones with `holdfast ls --all`.',
  },
  'SANDBOX::AMBIGUOUS': {
    status: 409,
    exit: 4,
    message: (c) => `"${c.given}" fits several sandboxes: ${c.matches.join(', ')}. Nothing was changed.`,
    suggestion: () => 'Give more characters of the id, or the whole name.',
  },
  'SANDBOX::NAME_TAKEN': {
    status: 409,
    exit: 4,
    message: (c) => `The name "${c.name}" belongs to sandbox ${c.id}. Nothing was created.`,
    suggestion: (c) => `Choose another name, or remove that one: holdfast rm ${c.id}`,
  },
  'SANDBOX::INVALID_STATE': {
    status: 409,
    exit: 4,
    message: (c) =>
      `Sandbox ${c.id} is ${c.state}, so it cannot ${c.action}. Its data is untouched. Possible now: ${c.possible.join(', ') || 'nothing, it is being deleted'}.`,
    suggestion: (c) => `holdfast explain ${c.id}`,
  },
  'SANDBOX::NOT_RUNNING': {
    status: 409,
    exit: 4,
    message: (c) => `Sandbox ${c.id} is ${c.state}, and this needs it to be running. Its data is untouched.`,
    suggestion: (c) => `holdfast start ${c.id}`,
  },
  'SANDBOX::NEVER_EXPIRES': {
    status: 409,
    exit: 4,
    message: (c) => `Sandbox ${c.id} never expires, so there is nothing to renew.`,
  },
  'VOLUME::NOT_FOUND': {
    status: 404,
    exit: 3,
    message: (c) => `There is no volume "${c.id}".`,
    suggestion: () => 'List them with `holdfast volume ls`.',
  },
  'VOLUME::CLAIM_NOT_FOUND': {
    status: 400,
    exit: 3,
    message: (c) =>
      `There is no volume with the claim name "${c.claim}", and createIfNotExists is false. Nothing was created.`,
    suggestion: (c) => `holdfast volume create ${c.claim}`,
  },
  'VOLUME::CLAIM_TAKEN': {
    status: 409,
    exit: 4,
    message: (c) => `A volume with the claim name "${c.claim}" exists. It is untouched.`,
  },
  'VOLUME::OWNED': {
    status: 409,
    exit: 4,
    // Upstream's code for this; its status tells it from a malformed request.
    wire: 'SANDBOX::INVALID_PARAMETER',
    message: (c) =>
      `The volume "${c.claim}" belongs to sandbox ${c.owner} and goes with it. Nothing was created; the volume is untouched.`,
    suggestion: () => 'Make a shared volume first: holdfast volume create NAME --shared',
  },
  'VOLUME::IN_USE': {
    status: 409,
    exit: 4,
    message: (c) => `The volume "${c.claim}" is in use by ${c.holders.join(', ')}. It is untouched.`,
    suggestion: (c) => `holdfast volume inspect ${c.claim}`,
  },
  'VOLUME::REMOVING': {
    status: 409,
    exit: 4,
    message: (c) => `The volume "${c.claim}" is being removed, so nothing new can use it.`,
    suggestion: (c) => `Wait until it is gone: holdfast volume inspect ${c.claim}`,
  },
  'HOST_PATH::NOT_ALLOWED': {
    status: 400,
    exit: 2,
    message: (c) =>
      `${c.field}: the host path "${c.path}" is not under an allowed prefix. Nothing was created.`,
    suggestion: () =>
      'Start the server with HOLDFAST_ALLOWED_HOST_PATHS set to the prefixes that sandboxes may mount.',
  },
  IDEMPOTENCY_MISMATCH: {
    status: 409,
    exit: 4,
    message: (c) => `The Idempotency-Key "${c.key}" was used for a different request. Nothing was changed.`,
    suggestion: () => 'Use a new key for a new request.',
  },
  IDEMPOTENCY_UNSUPPORTED: {
    status: 400,
    exit: 2,
    message: (c) => `${c.route} takes no Idempotency-Key, because it records no intent. Nothing was changed.`,
  },
  ROUTE_NOT_FOUND: {
    status: 404,
    exit: 3,
    message: (c) => `There is no ${c.method} ${c.path}.`,
    suggestion: () => 'See /docs.',
  },
  UNSUPPORTED: {
    status: 501,
    exit: 1,
    message: (c) => `The engine ${c.engine} cannot ${c.what}. Nothing was changed.`,
  },
  NOT_IMPLEMENTED: {
    status: 501,
    exit: 1,
    message: (c) => `${c.what} is not available: ${c.detail}. Nothing was changed.`,
  },
  SERVICE_UNAVAILABLE: {
    status: 503,
    exit: 5,
    message: (c) => `Not now: ${c.detail}. Nothing was changed.`,
    suggestion: () => 'Try again in a moment.',
  },
  ENGINE_UNREACHABLE: {
    status: 503,
    exit: 5,
    message: (c) =>
      `The engine ${c.engine} does not answer: ${c.detail}. Sandboxes and data are as they were.`,
    suggestion: () => 'holdfast doctor',
  },
  ENGINE_FAILED: {
    status: 502,
    exit: 1,
    message: (c) => `The engine ${c.engine} failed: ${c.detail}.`,
    suggestion: () => 'holdfast doctor',
  },
  STORE_FAILED: {
    status: 503,
    exit: 1,
    message: (c) =>
      `The state could not be written: ${c.detail}. The request was not recorded; nothing was changed.`,
    suggestion: () => 'Check the free space and the permissions of the state directory: holdfast doctor',
  },
  STATE_LOCKED: {
    status: 503,
    exit: 4,
    message: (c) => `The state directory ${c.dir} is in use by ${c.holder}. Nothing was changed.`,
    suggestion: () => 'Stop that server, or set HOLDFAST_STATE_DIR to another directory.',
  },
  INSTALLATION_RUNNING: {
    status: 503,
    exit: 4,
    message: (c) =>
      `The state directory ${c.dir} is a copy: its installation is held by ${c.holder}, which uses another directory. Two control planes would undo each other's work, so nothing was asked of the engine.`,
    suggestion: () =>
      'Stop that process (kill -9 where it hangs), or set HOLDFAST_STATE_DIR to a new directory.',
  },
  STORE_TOO_NEW: {
    status: 503,
    exit: 1,
    message: (c) =>
      `The database ${c.path} has schema version ${c.found}; this Holdfast knows up to ${c.known}. Nothing was changed.`,
    suggestion: () => 'Run the newer Holdfast that wrote it.',
  },
  STORE_ENGINE_MISMATCH: {
    status: 503,
    exit: 4,
    message: (c) =>
      `This state directory belongs to the engine ${c.stored}, and ${c.asked} was asked for. Sandboxes cannot move between engines by a switch, so nothing was changed.`,
    suggestion: () => 'Keep the engine, or set HOLDFAST_STATE_DIR to a new directory for the other one.',
  },
  FENCED: {
    status: 503,
    exit: 4,
    message: (c) =>
      c.current === null
        ? `This control plane (epoch ${c.mine}) no longer holds its state directory, so it writes nothing more. Sandboxes and data are as they were.`
        : `A newer control plane (epoch ${c.current}) has taken over from this one (epoch ${c.mine}), which writes nothing more.`,
  },
  ROW_UNREADABLE: {
    status: 500,
    exit: 1,
    message: (c) =>
      `The row ${c.table}/${c.id} cannot be read (${c.detail}). It is left as it is, and so is all that it stands for on the engine; other rows are not affected.`,
    suggestion: () =>
      'holdfast doctor lists such rows; a backup has them as they were: holdfast restore --help',
  },
  REMOVALS_HELD: {
    status: 409,
    exit: 4,
    message: (c) =>
      `${c.id} is not removed: ${c.cause}, so removals are held since ${c.since}. Nothing was recorded; its data is untouched.`,
    suggestion: () =>
      'Look at what the store and the engine say (holdfast doctor, holdfast audit), then: holdfast rebuild --confirm',
  },
  STATE_EMPTY: {
    status: 404,
    exit: 3,
    message: (c) => `There is no store in ${c.dir}. Nothing was written.`,
    suggestion: () => 'Name the state directory with --state-dir or HOLDFAST_STATE_DIR.',
  },
  STATE_NOT_EMPTY: {
    status: 409,
    exit: 4,
    message: (c) => `The state directory ${c.dir} holds a store. Nothing was changed.`,
    suggestion: () =>
      'Say --force to replace it; it is kept beside. Or set HOLDFAST_STATE_DIR to another directory.',
  },
  BACKUP_EXISTS: {
    status: 409,
    exit: 4,
    message: (c) => `${c.path} exists. It is as it was; no backup was written.`,
    suggestion: () => 'Name another file, a directory, or say --force.',
  },
  BACKUP_FAILED: {
    status: 500,
    exit: 1,
    message: (c) => `No backup was written: ${c.detail}. The state and older backups are as they were.`,
  },
  BACKUP_INVALID: {
    status: 400,
    exit: 1,
    message: (c) => `${c.path} is no backup that can be restored: ${c.detail}. Nothing was changed.`,
    suggestion: () =>
      'Try an older backup, or what the engine itself still tells: holdfast rebuild --dry-run',
  },
  NOTHING_TO_REBUILD: {
    status: 404,
    exit: 3,
    message: (c) =>
      c.installation === null
        ? `The engine ${c.engine} has no object of any Holdfast installation. Nothing was changed.`
        : `The engine ${c.engine} has no object of the installation ${c.installation}. Nothing was changed.`,
    suggestion: () => 'Name the engine that the sandboxes ran on: --engine, DOCKER_HOST',
  },
  SEVERAL_INSTALLATIONS: {
    status: 409,
    exit: 4,
    message: (c) =>
      `The engine ${c.engine} has objects of several installations: ${c.found.join('; ')}. Nothing was changed.`,
    suggestion: () => 'Name one: holdfast rebuild --installation ID',
  },
  NO_ENGINE: {
    status: 503,
    exit: 5,
    message: (c) => `No engine was found. Looked for: ${c.looked.join('; ')}.`,
    suggestion: () =>
      'Install Docker (Debian: apt-get install docker.io), or try without one: holdfast server --engine local',
  },
  CONFIG_INVALID: {
    status: 500,
    exit: 2,
    message: (c) => `The configuration (${c.source}) is not valid: ${list(c.issues)}.`,
  },
  LISTEN_UNSAFE: {
    status: 500,
    exit: 2,
    message: (c) =>
      `${c.address} is not a loopback address, and without TLS keys and data would cross the network in clear. Not started.`,
    suggestion: () =>
      'Give --tls-cert and --tls-key, or say --insecure-listen when something in front does TLS.',
  },
  ADDRESS_IN_USE: {
    status: 500,
    exit: 4,
    message: (c) =>
      `${c.address} is in use by another program. Not started; sandboxes and data are as they were.`,
    suggestion: () => 'Choose another with --listen or HOLDFAST_LISTEN.',
  },
  SERVER_UNREACHABLE: {
    status: 503,
    exit: 5,
    message: (c) =>
      `No Holdfast server answers at ${c.url} (${c.detail}). Sandboxes keep running without it.`,
    suggestion: () => 'Start one: holdfast server',
  },
  EXEC_FAILED: {
    status: 422,
    exit: 126,
    message: (c) => `The command could not be run in sandbox ${c.id}: ${c.detail}.`,
  },
  EXEC_NO_SHELL: {
    status: 422,
    exit: 126,
    message: (c) =>
      `The image of sandbox ${c.id} has no sh, so only plain commands (an argument list) can be run in it.`,
  },
  LANE_LOST: {
    status: 502,
    exit: 1,
    message: (c) =>
      `The command's connection into sandbox ${c.id} was lost: ${c.detail}. It may have run in part.`,
  },
  PATH_NOT_FOUND: {
    status: 404,
    exit: 3,
    message: (c) => `There is no ${c.path} in sandbox ${c.id}.`,
  },
  PORT_REFUSED: {
    status: 502,
    exit: 1,
    message: (c) => `Nothing answers at port ${c.port} of sandbox ${c.id}: ${c.detail}.`,
    suggestion: (c) => `Look whether it listens: holdfast logs ${c.id}`,
  },
  TIMEOUT: {
    status: 504,
    exit: 124,
    message: (c) =>
      `${c.what} was not done after ${c.afterMs} ms. What was accepted goes on in the background.`,
  },
  INTERNAL: {
    status: 500,
    exit: 1,
    message: (c) =>
      `An error of Holdfast's own; it is in the server's log under request ${c.requestId}. Acknowledged work is safe.`,
  },
}

/** The JSON form of every non-2xx answer. */
export interface ErrorBody {
  readonly code: string
  readonly message: string
  readonly suggestion?: string
  readonly details?: unknown
}

export class HoldfastError extends Error {
  readonly code: ErrorCode
  readonly status: number
  readonly exitCode: number
  readonly suggestion: string | undefined
  readonly details: unknown
  readonly wireCode: ErrorCode

  constructor(
    code: ErrorCode,
    message: string,
    entry: { status: number; exit: number; wire?: ErrorCode },
    suggestion: string | undefined,
    details: unknown,
  ) {
    super(message)
    this.name = 'HoldfastError'
    this.code = code
    this.status = entry.status
    this.exitCode = entry.exit
    this.suggestion = suggestion
    this.details = details
    this.wireCode = entry.wire ?? code
  }

  toBody(): ErrorBody {
    return {
      code: this.wireCode,
      message: this.message,
      ...(this.suggestion === undefined ? {} : { suggestion: this.suggestion }),
      ...(this.details === undefined ? {} : { details: this.details }),
    }
  }
}

/** Builds the error of a code from its context. The context must hold no secret: it becomes `details` on the wire. */
export function fail<K extends ErrorCode>(code: K, context: ErrorContexts[K]): HoldfastError {
  const entry = TABLE[code]
  return new HoldfastError(code, entry.message(context), entry, entry.suggestion?.(context), context)
}

/** The exit code of an answer, from its HTTP status where this version does not know the code. */
export function exitCodeFor(code: string, status: number): number {
  const borrowed = Object.values<{ wire?: ErrorCode; status: number; exit: number }>(TABLE).find(
    (e) => e.wire === code && e.status === status,
  )
  if (borrowed !== undefined) return borrowed.exit
  if (Object.hasOwn(TABLE, code)) return TABLE[code as ErrorCode].exit
  if (status === 404) return 3
  if (status === 409) return 4
  if (status === 400 || status === 422) return 2
  if (status === 503) return 5
  return status === 504 ? 124 : 1
}

/** Every code with its status, for the OpenAPI document and the docs. */
export function errorCodes(): readonly { code: ErrorCode; status: number; exit: number }[] {
  return (Object.keys(TABLE) as ErrorCode[]).map((code) => ({
    code,
    status: TABLE[code].status,
    exit: TABLE[code].exit,
  }))
}
