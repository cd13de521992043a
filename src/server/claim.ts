import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { createServer } from 'node:net'
import { fail } from '../model/errors.ts'

/** An installation held by this process, whatever directory its state is in. */
export interface Claim {
  release(): void
}

/**
 * Holds the installation on this machine for the process's life. The lock of the state directory cannot tell a copy
 * of it: a second control plane on one would act on the same engine objects with the same right as the first. The name
 * is in the kernel's abstract socket space, so it leaves no file behind, it is freed however the process ends, and a
 * process that is only stopped keeps it. Any user of the machine can hold a name, and so keep a server from starting; none
 * can do more with it. Other machines and other network namespaces are not seen.
 *
 * Throws `INSTALLATION_RUNNING`, naming the holder.
 */
export async function claimInstallation(installation: string, dir: string): Promise<Claim> {
  if (process.platform !== 'linux') return { release: () => undefined }
  const name = `holdfast-${installation}`
  const server = createServer((socket) => socket.destroy())
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE' ? fail('INSTALLATION_RUNNING', { dir, holder: holderOf(name) }) : error,
      ),
    )
    server.listen({ path: `\0${name}` }, resolve)
  })
  // Whatever befalls a connection to it: the name is held for as long as the process lives.
  server.on('error', () => undefined)
  server.unref()
  return { release: () => void server.close() }
}

/** The holder in words; who it is helps people, and decides nothing. */
function holderOf(name: string): string {
  const inode = inodeOf(name)
  const pid = inode === null ? undefined : pids().find((each) => holds(each, inode))
  return pid === undefined ? 'another process' : `process ${pid}`
}

function inodeOf(name: string): string | null {
  const line = readFileSync('/proc/net/unix', 'latin1')
    .split('\n')
    .find((each) => each.endsWith(` @${name}`))
  return line?.trim().split(/\s+/)[6] ?? null
}

const pids = (): string[] => readdirSync('/proc').filter((each) => /^\d+$/.test(each))

function holds(pid: string, inode: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some(
      (fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`,
    )
  } catch {
    // It ended or closed it between the listing and the look, or is another user's.
    return false
  }
}
