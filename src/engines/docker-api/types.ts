/** What is read of the engine's JSON. Only fields that are used; all others are left alone. */

export interface ContainerInspect {
  readonly Id: string
  /** With a leading slash. */
  readonly Name: string
  readonly Created: string
  readonly State: {
    readonly Status?: string
    readonly Running: boolean
    readonly Paused: boolean
    readonly OOMKilled: boolean
    readonly Pid?: number
    readonly ExitCode: number
    readonly StartedAt: string
    readonly FinishedAt: string
  }
  /** The image's id, whatever its name means now. */
  readonly Image?: string
  readonly Config?: {
    readonly Labels?: Readonly<Record<string, string>> | null
    readonly Tty?: boolean
    /** As it was asked for. */
    readonly Image?: string
    readonly Entrypoint?: readonly string[] | string | null
    readonly Cmd?: readonly string[] | null
    readonly Env?: readonly string[] | null
    readonly WorkingDir?: string
    readonly User?: string
  }
  readonly HostConfig?: {
    readonly Memory?: number
    readonly NanoCpus?: number
    readonly PidsLimit?: number | null
    readonly Mounts?: readonly MountRequest[] | null
  }
  readonly Mounts?: readonly MountInspect[] | null
  readonly NetworkSettings?: {
    readonly IPAddress?: string
    readonly Networks?: Readonly<Record<string, { readonly IPAddress?: string } | null>> | null
  }
}

export interface MountRequest {
  readonly Type: string
  readonly Source?: string
  readonly Target: string
  readonly ReadOnly?: boolean
}

export interface MountInspect {
  readonly Type: string
  readonly Name?: string
  readonly Destination: string
  readonly RW: boolean
}

export interface VolumeInspect {
  readonly Name: string
  readonly Driver: string
  readonly Mountpoint?: string
  readonly CreatedAt?: string
  readonly Labels?: Readonly<Record<string, string>> | null
  readonly Options?: Readonly<Record<string, string>> | null
}

export interface ImageInspect {
  readonly Id: string
  readonly Config?: {
    readonly Entrypoint?: readonly string[] | string | null
    readonly Cmd?: readonly string[] | null
    readonly Volumes?: Readonly<Record<string, unknown>> | null
    readonly User?: string
    readonly Env?: readonly string[] | null
    readonly WorkingDir?: string
  } | null
}

export interface ExecInspect {
  readonly Running: boolean
  readonly ExitCode: number | null
  readonly Pid?: number
}

export interface EventMessage {
  readonly Type?: string
  readonly Action?: string
  readonly Actor?: { readonly ID?: string; readonly Attributes?: Readonly<Record<string, string>> }
  readonly time?: number
  readonly timeNano?: number
}

export interface StatsMessage {
  readonly read: string
  readonly cpu_stats?: { readonly cpu_usage?: { readonly total_usage?: number } }
  readonly memory_stats?: {
    readonly usage?: number
    readonly limit?: number
    readonly stats?: Readonly<Record<string, number>>
  }
  readonly pids_stats?: { readonly current?: number }
}
