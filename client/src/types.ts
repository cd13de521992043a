/** What goes over the wire. Times are RFC 3339 strings; a state or reason that a newer server adds is just a string. */

export interface Status {
  readonly state: string
  readonly reason: string
  readonly message: string
  readonly lastTransitionAt?: string
}

export interface SandboxVolume {
  readonly name: string
  readonly claimName: string
  readonly uid: string
  readonly mountPath: string
  readonly readOnly: boolean
  readonly kind: string
}

export interface ExitInfo {
  readonly code: number | null
  readonly class: string
  readonly finishedAt: string | null
}

export interface Sandbox {
  readonly id: string
  readonly name: string | null
  readonly status: Status
  readonly image: { readonly uri: string }
  readonly entrypoint: string[]
  readonly env: Readonly<Record<string, string>>
  readonly resourceLimits: Readonly<Record<string, string>>
  readonly metadata: Readonly<Record<string, string>>
  readonly createdAt: string
  readonly expiresAt: string | null
  /** `no`, `always`, `on-failure` or `on-failure:<n>`. */
  readonly restartPolicy: string
  readonly desired: { readonly state: string; readonly reason: string; readonly at: string }
  readonly generation: number
  readonly observedGeneration: number
  readonly engine: string
  readonly instance: {
    readonly number: number
    readonly name: string
    readonly engineId: string | null
    readonly startedAt: string | null
  } | null
  readonly lastExit: ExitInfo | null
  readonly restarts: number
  readonly volumes: SandboxVolume[]
  readonly stopGraceSeconds: number
  readonly deletedAt: string | null
}

export interface VolumeRequest {
  readonly name: string
  readonly mountPath: string
  readonly readOnly?: boolean
  readonly pvc?: {
    readonly claimName: string
    readonly createIfNotExists?: boolean
    readonly deleteOnSandboxTermination?: boolean
    readonly storage?: string
  }
  readonly host?: { readonly path: string }
  readonly shared?: boolean
}

export interface CreateSandbox {
  readonly image: { readonly uri: string }
  /** Left out or empty: the image's own. */
  readonly entrypoint?: string[]
  readonly resourceLimits?: Readonly<Record<string, string>>
  /** Seconds until it expires, at least 60; null: never. */
  readonly timeout?: number | null
  readonly env?: Readonly<Record<string, string>>
  readonly metadata?: Readonly<Record<string, string>>
  readonly volumes?: VolumeRequest[]
  readonly name?: string
  readonly restartPolicy?: string
  /** False: no default workspace volume at `/sandbox`. */
  readonly workspace?: boolean
  readonly stopGraceSeconds?: number
  readonly workingDir?: string
  readonly user?: string
}

export interface CreatedSandbox {
  readonly id: string
  readonly name: string | null
  readonly status: Status
  readonly metadata?: Readonly<Record<string, string>>
  readonly expiresAt: string | null
  readonly createdAt: string
  readonly entrypoint: string[]
  readonly volumes: {
    readonly claimName: string
    readonly uid: string
    readonly mountPath: string
    readonly retention: string
  }[]
}

export interface UpdateSandbox {
  readonly image?: { readonly uri: string }
  /** Merged into the present one; null removes a name. */
  readonly env?: Readonly<Record<string, string | null>>
  readonly resourceLimits?: Readonly<Record<string, string>>
  readonly entrypoint?: string[]
  readonly restartPolicy?: string
  readonly stopGraceSeconds?: number
  readonly name?: string
}

export interface Pagination {
  readonly page: number
  readonly pageSize: number
  readonly totalItems: number
  readonly totalPages: number
  readonly hasNextPage: boolean
}

export interface Page<T> {
  readonly items: T[]
  readonly pagination: Pagination
}

export interface Explanation {
  readonly id: string
  readonly wanted: {
    readonly state: string
    readonly reason: string
    readonly at: string
    readonly generation: number
  }
  readonly observed: {
    readonly known: boolean
    readonly at?: string
    readonly error?: string
    readonly since?: string
    readonly instance?: {
      readonly state: string
      readonly paused: boolean
      readonly name: string
      readonly engineId: string
      readonly startedAt: string | null
      readonly exitCode: number | null
    } | null
  }
  readonly difference: string
  readonly next: string
  readonly nextAt: string | null
  readonly lastError: {
    readonly message: string
    readonly code: string
    readonly at: string
    readonly attempts: number
  } | null
  readonly breaker: { readonly since: string; readonly reason: string; readonly probeAt: string } | null
  readonly openSteps: {
    readonly kind: string
    readonly since: string
    readonly attempts: number
    readonly deadline: string
  }[]
  readonly survives: { readonly claimName: string; readonly uid: string; readonly state: string }[]
  readonly engine: { readonly id: string; readonly ok: boolean; readonly error: string | null }
  readonly lastExit: ExitInfo | null
  readonly suggestions: string[]
}

export interface Stats {
  readonly at: string
  readonly cpuMs: number
  readonly memoryBytes: number
  readonly memoryLimitBytes: number | null
  readonly pids: number
}

export interface ExecRequest {
  /** An argument list, or a script for `sh -c`. */
  readonly command: string[] | string
  readonly workingDir?: string
  readonly env?: Readonly<Record<string, string>>
  readonly user?: string
  readonly timeoutSeconds?: number
}

export interface ExecResult {
  readonly exitCode: number | null
  readonly stdout: string
  readonly stderr: string
  /** `base64` when the bytes are not valid UTF-8. */
  readonly stdoutEncoding?: string
  readonly stderrEncoding?: string
  readonly truncated: boolean
  readonly timedOut: boolean
  /** Why the exit code is not known, or null. */
  readonly lost: string | null
}

export interface Volume {
  readonly uid: string
  readonly claimName: string
  readonly kind: string
  readonly physicalName: string
  readonly state: string
  readonly retention: string
  readonly shared: boolean
  readonly managed: boolean
  readonly owner: string | null
  readonly mountedBy: string[]
  readonly sizeBytes: number | null
  readonly notEnforced: string[]
  readonly seed: string
  readonly message: string
  readonly createdAt: string
  readonly removedAt: string | null
}

export interface CreateVolume {
  readonly claimName: string
  readonly shared?: boolean
  /** As `1Gi`. */
  readonly storage?: string
  readonly retention?: 'retain' | 'delete'
}

export interface Event {
  readonly seq: number
  readonly at: string
  readonly subject: string
  readonly id: string
  readonly type: string
  readonly reason: string
  readonly message: string
}

export interface Finding {
  readonly kind: string
  readonly name: string
  readonly detail: string
}

export interface Audit {
  readonly engine: string
  readonly checkedAt: string
  readonly ok: boolean
  readonly counts: Readonly<Record<string, number>>
  readonly findings: Finding[]
}

export interface EngineInfo {
  readonly id: string
  readonly driver: string
  readonly ok: boolean
  readonly error: string | null
  readonly since: string | null
  readonly info?: {
    readonly version: string
    readonly apiVersion: string
    readonly endpoint: string
    readonly details: Readonly<Record<string, string>>
  }
}

export interface ServerInfo {
  readonly version: string
  readonly installation: string
  readonly epoch: number
  readonly engine: string
  readonly startedAt: string
  readonly stateDir: string
  readonly apiListen: string
  readonly proxyListen: string
}

export interface PortLink {
  readonly url: string
  readonly expiresAt: string
}

export interface Endpoint {
  /** Without a scheme. */
  readonly endpoint: string
  readonly headers?: Readonly<Record<string, string>>
}
