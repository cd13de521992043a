import type { CreateInstance, CreateMount } from '../engine.ts'

/** What an instance may hold when its spec says nothing: far above any honest workload, far below a machine's limit. */
export const DEFAULT_PIDS_LIMIT = 1024

/**
 * The body of a create. Rules that hold for every instance:
 * - every capability is dropped and no program gains any: root in a sandbox is root over nothing but its own files.
 *   It has no CAP_DAC_OVERRIDE, CAP_CHOWN or CAP_SETUID either, so `su`, `chown` and reading other users' files fail;
 * - the engine never restarts it: whether it runs is decided in one place (DESIGN §4.7);
 * - `docker-init` is process 1, so that orphans are reaped and signals reach the workload;
 * - its log is capped, so that no output fills the machine's disk.
 */
export function createBody(request: CreateInstance): unknown {
  const { limits } = request
  const memory =
    limits.memoryBytes === undefined ? {} : { Memory: limits.memoryBytes, MemorySwap: limits.memoryBytes }
  const cpu = limits.cpuMillis === undefined ? {} : { NanoCpus: limits.cpuMillis * 1_000_000 }
  return {
    Image: request.image,
    Hostname: request.hostname,
    Env: Object.entries(request.env).map(([name, value]) => `${name}=${value}`),
    Labels: request.labels,
    // With an entrypoint of our own the image's Cmd would be appended to it.
    ...(request.entrypoint.length === 0 ? {} : { Entrypoint: request.entrypoint, Cmd: [] }),
    ...(request.workingDir === null ? {} : { WorkingDir: request.workingDir }),
    ...(request.user === null ? {} : { User: request.user }),
    HostConfig: {
      Init: true,
      RestartPolicy: { Name: 'no' },
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges'],
      PidsLimit: limits.pids ?? DEFAULT_PIDS_LIMIT,
      ...cpu,
      ...memory,
      LogConfig: { Type: 'json-file', Config: { 'max-size': '10m', 'max-file': '3' } },
      Mounts: request.mounts.map(mountBody),
    },
  }
}

function mountBody(mount: CreateMount): unknown {
  const { source } = mount
  const common = { Target: mount.path, ReadOnly: mount.readOnly }
  if (source.kind === 'host')
    return { ...common, Type: 'bind', Source: source.path, BindOptions: { Propagation: 'rprivate' } }
  return { ...common, Type: 'volume', Source: source.name, VolumeOptions: { NoCopy: !mount.seed } }
}
