import type { Capabilities } from '../engine.ts'
import type { Cgroups } from './cgroup.ts'
import type { Mode } from './launch.ts'

const why = (mode: Mode, root: boolean): string =>
  mode === 'none'
    ? 'there is no isolation'
    : root
      ? 'the kernel gives this machine no such cgroup'
      : 'the server does not run as root'

/** What this machine lets the engine do, and in words what it asks for and cannot have. */
export function capabilitiesOf(mode: Mode, cgroups: Cgroups | null): Capabilities {
  const root = process.getuid?.() === 0
  const linux = process.platform === 'linux'
  const has = (controller: 'memory' | 'pids' | 'cpu'): boolean =>
    mode !== 'none' && (cgroups?.has(controller) ?? false)
  const missing = (['memory', 'cpu', 'pids'] as const).filter((c) => !has(c))
  const notEnforced = [
    'not a security boundary: the kernel is shared, and nothing is filtered',
    'the network is shared with the host: sandboxes reach what the host reaches, and can take its ports',
    'sizes of volumes',
    ...missing.map((c) => `${c} limits, because ${why(mode, root)}`),
  ]
  if (mode === 'bare')
    notEnforced.push(
      "the workload has the powers of the host's root, because the kernel gives no user namespace",
    )
  if (mode === 'single')
    notEnforced.push('other users than root inside, because the server does not run as root')
  if (mode === 'none') {
    notEnforced.push(
      "ISOLATION IS OFF: workloads are plain processes of the server's user and can read, change and signal all that it can",
      'mount paths: a volume is the working directory, or a directory named by HOLDFAST_MOUNT_<n>; read-only mounts are writable',
      'images, users and host names',
    )
  }
  return {
    pause: linux,
    memoryLimit: has('memory'),
    cpuLimit: has('cpu'),
    pidsLimit: has('pids'),
    volumeSize: false,
    tty: linux,
    lanes: linux,
    pull: false,
    dial: linux,
    notEnforced,
  }
}
