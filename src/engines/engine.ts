import type { Readable, Duplex } from 'node:stream'
import type { EngineRun, ImageFacts, InstanceFacts, VolumeFacts } from '../model/facts.ts'
import type { Limits } from '../model/records.ts'

/**
 * What a driver must do, and nothing of what Holdfast decides. Contract, checked by `test/engines/conformance.ts`:
 *
 * - Every method rejects with `EngineError` only; `effect` is `none` only when the engine certainly did nothing.
 * - `null` from an inspect means *confirmed absent*. Doubt of any kind is a rejection, never `null`.
 * - A list is whole or it rejects; it is never partial.
 * - Removals are by the engine's id (volumes: by a name that is never reused), and removing what is gone succeeds.
 * - Nothing is retried inside a driver except reads that failed before anything was sent.
 */
export interface Engine {
  /** The engine's name in the store, as `docker` or `local`. */
  readonly id: string
  readonly driver: 'docker' | 'podman' | 'kubernetes' | 'local' | 'simulated'
  readonly capabilities: Capabilities

  /** Asks the engine who it is. The cheapest call that proves that it answers. */
  info(call: Call): Promise<EngineInfo>

  /** All instances that carry `holdfast.dev/installation`, of any installation, running or not. */
  listInstances(call: Call): Promise<readonly InstanceFacts[]>
  /** By name or engine id. */
  inspectInstance(nameOrId: string, call: Call): Promise<InstanceFacts | null>
  /**
   * What an instance was made from, for whoever has lost the record of it. What comes from its image is left out, so
   * that it fits the next image as well. Null is confirmed absent.
   */
  describeInstance(id: string, call: Call): Promise<InstanceOrigin | null>
  /**
   * Makes an instance and does not start it. A mount with `seed` is filled from the image's content at that path
   * before the instance becomes visible to `inspectInstance`. A taken name rejects with `conflict`, effect `none`.
   */
  createInstance(request: CreateInstance, call: Call): Promise<{ readonly id: string }>
  /** Starting a running instance succeeds. */
  startInstance(id: string, call: Call): Promise<void>
  /** Asks politely, and after `graceMs` kills. Stopping a stopped instance succeeds. */
  stopInstance(id: string, graceMs: number, call: Call): Promise<void>
  pauseInstance(id: string, call: Call): Promise<void>
  unpauseInstance(id: string, call: Call): Promise<void>
  /** Removes by engine id, killing it if it runs; its named volumes stay. */
  removeInstance(id: string, call: Call): Promise<void>
  /**
   * Why a stopped instance ended, as far as the engine remembers: `external` when a stop or kill was sent through
   * the engine, `own` when it certainly was not, null when it cannot tell. Rejects as `unreachable` when the engine is
   * ending or has ended: an answer means that the run in `facts` goes on.
   */
  exitCause(facts: InstanceFacts, call: Call): Promise<'external' | 'own' | null>

  /** Every volume of the engine, ours or not: the sweep must see unlabelled ones under our names. */
  listVolumes(call: Call): Promise<readonly VolumeFacts[]>
  inspectVolume(name: string, call: Call): Promise<VolumeFacts | null>
  createVolume(request: CreateVolume, call: Call): Promise<void>
  /** In use by any instance, of anybody: rejects with `conflict`, effect `none`. */
  removeVolume(name: string, call: Call): Promise<void>
  /** True when the volume holds no entry but `lost+found`. Only asked before a removal of an unlabelled one. */
  volumeIsEmpty(name: string, call: Call): Promise<boolean>

  /** Null when the image is not present on the engine. */
  inspectImage(image: string, call: Call): Promise<ImageFacts | null>
  /** A missing image or a registry that refuses rejects with `image-missing`. */
  pullImage(image: string, progress: (line: string) => void, call: Call): Promise<void>

  /** Runs a program in a running instance. Resolves when it was started. */
  exec(id: string, request: ExecRequest, call: Call): Promise<ExecStream>
  /** The instance's own output. Ends at the end of what there is, or with `follow` when the instance ends. */
  logs(id: string, request: LogRequest, call: Call): Promise<AsyncIterable<LogChunk>>
  stats(id: string, call: Call): Promise<InstanceStats>
  /** A tar stream of `path`: its base name is the first entry, as `docker cp` does. Works on a stopped instance. */
  copyOut(id: string, path: string, call: Call): Promise<Readable>
  /** Unpacks a tar stream into the directory `path`, which must exist. Works on a stopped instance. */
  copyIn(id: string, path: string, tar: Readable, call: Call): Promise<void>
  /** Connects to a TCP port inside the instance. A refused port rejects with `failed`, effect `none`. */
  dial(id: string, port: number, call: Call): Promise<Duplex>

  /**
   * Hints that something changed. The iterator re-connects by itself, with backoff, and yields `resync` after each
   * gap; it ends only when the signal is aborted.
   */
  events(signal: AbortSignal): AsyncIterable<EngineEvent>

  /** Releases connections. Instances keep running. */
  close(): Promise<void>
}

/** The frame of one call: how long it may take, who may abort it, and the fence that is asked before each send. */
export interface Call {
  readonly limitMs: number
  readonly signal?: AbortSignal
  /** Throws when this control plane may no longer act (DESIGN §4.9). Drivers call it right before sending a mutation. */
  readonly fence?: () => void
}

export interface Capabilities {
  readonly pause: boolean
  readonly memoryLimit: boolean
  readonly cpuLimit: boolean
  readonly pidsLimit: boolean
  readonly volumeSize: boolean
  readonly tty: boolean
  /** False when exec streams cannot carry lanes (isolation `none` on macOS). */
  readonly lanes: boolean
  readonly pull: boolean
  readonly dial: boolean
  /** Sentences about what is asked for and not enforced here, for statuses and `doctor`. */
  readonly notEnforced: readonly string[]
}

export interface EngineInfo {
  readonly version: string
  readonly apiVersion: string
  readonly endpoint: string
  readonly run: EngineRun
  /** Free words for `doctor`: storage driver, isolation, rootless… */
  readonly details: Readonly<Record<string, string>>
}

export interface CreateMount {
  readonly path: string
  readonly source:
    | { readonly kind: 'volume'; readonly name: string }
    | { readonly kind: 'host'; readonly path: string }
  readonly readOnly: boolean
  /** Fill the (new, empty) volume from the image's content at `path`. */
  readonly seed: boolean
}

export interface CreateInstance {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly image: string
  /** Empty means the image's own. */
  readonly entrypoint: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly limits: Limits
  readonly mounts: readonly CreateMount[]
  readonly workingDir: string | null
  readonly user: string | null
  readonly hostname: string
}

/** The part of a `CreateInstance` that engines tell again. */
export interface InstanceOrigin extends Pick<
  CreateInstance,
  'image' | 'entrypoint' | 'env' | 'limits' | 'workingDir' | 'user'
> {
  readonly mounts: readonly Omit<CreateMount, 'seed'>[]
  /** False when its image is gone, so that what came from it could not be left out. */
  readonly imageKnown: boolean
}

export interface CreateVolume {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly sizeBytes: number | null
}

export interface ExecRequest {
  readonly command: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly workingDir?: string
  readonly user?: string
  /** Keep standard input open. */
  readonly stdin: boolean
  /** One terminal instead of separate streams; `stderr` then stays empty. */
  readonly tty?: { readonly columns: number; readonly rows: number }
}

/** A running exec. Both output streams must be read, or the program blocks (back-pressure). */
export interface ExecStream {
  readonly stdout: Readable
  readonly stderr: Readable
  /** Writes to standard input; resolves when it was taken, which is the back-pressure. */
  write(data: Uint8Array): Promise<void>
  /** Half-closes standard input. */
  end(): void
  /** Resolves with the exit status once the program has ended and its output was read: 128+n for a signal. Null when it cannot be told. */
  readonly exit: Promise<number | null>
  resize(columns: number, rows: number): Promise<void>
  /** Drops the connection; the program may go on. */
  destroy(error?: Error): void
}

export interface LogRequest {
  readonly follow: boolean
  /** Milliseconds since the epoch; 0 means from the start. */
  readonly sinceMs: number
  /** Last n lines; null means all. */
  readonly tail: number | null
}

export interface LogChunk {
  readonly stream: 'stdout' | 'stderr'
  /** Milliseconds since the epoch, null where the engine does not know. */
  readonly at: number | null
  readonly data: Uint8Array
}

export interface InstanceStats {
  readonly at: number
  /** Total CPU time used, milliseconds. */
  readonly cpuMs: number
  readonly memoryBytes: number
  readonly memoryLimitBytes: number | null
  readonly pids: number
}

export type EngineEvent =
  | {
      readonly kind: 'instance'
      readonly name: string
      readonly id: string
      readonly action: string
      readonly at: number
    }
  | { readonly kind: 'volume'; readonly name: string; readonly action: string; readonly at: number }
  /** Something may have been missed: look at everything. */
  | { readonly kind: 'resync'; readonly at: number }
