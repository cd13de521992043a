import type { CreateSandbox } from '@holdfast/client'
import type { Command } from 'commander'
import {
  commandWords,
  parseCount,
  parseCpu,
  parseEnv,
  parseMount,
  parsePairs,
  parseRestartPolicy,
  parseSize,
  collect,
  UsageError,
} from './parse.ts'
import { argument, durationOption } from './wait.ts'

/** The options that `create` and `run` share. */
export interface SpecOptions {
  readonly name?: string
  readonly env?: string[]
  readonly volume?: string[]
  readonly label?: string[]
  readonly cpu?: string
  readonly memory?: string
  readonly pids?: number
  readonly restart?: string
  readonly expires?: number
  readonly workspace: boolean
  readonly workdir?: string
  readonly user?: string
  readonly stopGrace?: number
  readonly deleteVolumes?: boolean
}

export function limitOptions(command: Command): Command {
  return command
    .option('--cpu <cores>', 'processor limit, as 2, 0.5 or 500m', argument(parseCpu))
    .option('-m, --memory <size>', 'memory limit, as 512Mi', argument(parseSize))
    .option('--pids <count>', 'limit of processes', argument(parseCount))
}

export function specOptions(command: Command): Command {
  command
    .option('-n, --name <name>', 'name it; unique among those that are not deleted')
    .option(
      '-e, --env <NAME=value>',
      'environment entry; NAME alone passes the one here (repeatable)',
      collect,
    )
    .option('-v, --volume <mount>', 'CLAIM:/path[:ro] or /host/dir:/path[:ro] (repeatable)', collect)
    .option('--delete-volumes', 'volumes made for this sandbox go with it (else they are kept)')
    .option('-l, --label <key=value>', 'metadata to find it by (repeatable)', collect)
  return limitOptions(command)
    .option(
      '--restart <policy>',
      'no (default), always, on-failure or on-failure:<n>',
      argument(parseRestartPolicy),
    )
    .addOption(durationOption('--expires <duration>', 'delete it after this, at least 60s (default: never)'))
    .option('--no-workspace', 'make no workspace volume at /sandbox')
    .option('-w, --workdir <path>', 'working directory of its main process')
    .option('-u, --user <user>', 'user of its main process')
    .addOption(
      durationOption(
        '--stop-grace <duration>',
        'time between TERM and KILL when it is stopped (default 10s)',
      ),
    )
}

export function resourceLimits(
  options: Pick<SpecOptions, 'cpu' | 'memory' | 'pids'>,
): Record<string, string> | null {
  const limits = {
    ...(options.cpu === undefined ? {} : { cpu: options.cpu }),
    ...(options.memory === undefined ? {} : { memory: options.memory }),
    ...(options.pids === undefined ? {} : { pids: String(options.pids) }),
  }
  return Object.keys(limits).length === 0 ? null : limits
}

const wholeSeconds = (ms: number): number => Math.ceil(ms / 1000)

/** Nothing in the sandbox, but it stays up to run commands in: what OpenSandbox's clients send as well. */
export const KEEP_UP: readonly string[] = ['tail', '-f', '/dev/null']

/** The body of a create. `entrypoint` empty: the image's own. */
export function createBody(
  image: string,
  entrypoint: readonly string[],
  options: SpecOptions,
  here: Readonly<Record<string, string | undefined>>,
): CreateSandbox {
  if (image === '') throw new UsageError('The image is empty')
  if (options.expires !== undefined && options.expires < 60_000) {
    throw new UsageError('--expires is at least 60s')
  }
  const mounts = (options.volume ?? []).map((text, i) => parseMount(text, i + 1))
  const volumes =
    options.deleteVolumes === true
      ? mounts.map((m) => (m.pvc == null ? m : { ...m, pvc: { ...m.pvc, deleteOnSandboxTermination: true } }))
      : mounts
  return {
    image: { uri: image },
    entrypoint: commandWords(entrypoint),
    resourceLimits: resourceLimits(options) ?? {},
    ...(options.name === undefined ? {} : { name: options.name }),
    ...(options.env === undefined ? {} : { env: parseEnv(options.env, here) }),
    ...(volumes.length === 0 ? {} : { volumes }),
    ...(options.label === undefined ? {} : { metadata: parsePairs(options.label, 'label') }),
    ...(options.restart === undefined ? {} : { restartPolicy: options.restart }),
    ...(options.expires === undefined ? {} : { timeout: wholeSeconds(options.expires) }),
    ...(options.workspace ? {} : { workspace: false }),
    ...(options.workdir === undefined ? {} : { workingDir: options.workdir }),
    ...(options.user === undefined ? {} : { user: options.user }),
    ...(options.stopGrace === undefined ? {} : { stopGraceSeconds: wholeSeconds(options.stopGrace) }),
  }
}
