import { request } from 'node:http'
import { accessSync, constants, readFileSync, statfsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Client, Recovery } from '@holdfast/client'
import { ApiError } from '@holdfast/client'
import { readServerFile, type Connection } from './locate.ts'
import { bytes } from './render.ts'

export interface Check {
  readonly name: string
  readonly verdict: 'ok' | 'note' | 'fail'
  readonly detail: string
}

const ok = (name: string, detail: string): Check => ({ name, verdict: 'ok', detail })
const note = (name: string, detail: string): Check => ({ name, verdict: 'note', detail })
const fail = (name: string, detail: string): Check => ({ name, verdict: 'fail', detail })

const NODE_MAJOR = 24
/** Limit of one question to an engine's socket. */
const SOCKET_LIMIT_MS = 3000
/** Below this a full disk is near enough to say so: the store and every volume live there. */
const LOW_DISK_BYTES = 1024 ** 3

export function checkRuntime(version: string): Check {
  const major = Number(/^v?(\d+)/.exec(version)?.[1])
  return major >= NODE_MAJOR
    ? ok('node', version)
    : fail('node', `${version}; ${NODE_MAJOR} or newer is needed`)
}

export function checkStateDir(dir: string): Check {
  try {
    const stat = statSync(dir)
    if (!stat.isDirectory()) return fail('state directory', `${dir} is not a directory`)
    accessSync(dir, constants.R_OK | constants.W_OK)
    const open = (stat.mode & 0o077) !== 0
    return open
      ? note('state directory', `${dir} can be read by other users: chmod 700 ${dir}`)
      : ok('state directory', dir)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return note('state directory', `${dir} does not exist yet; the server makes it`)
    if (code === 'EACCES')
      return fail('state directory', `${dir} is not yours to write; set HOLDFAST_STATE_DIR to one that is`)
    return fail('state directory', `${dir}: ${String(error)}`)
  }
}

export function checkDisk(dir: string): Check {
  for (let at = dir; ; at = join(at, '..')) {
    try {
      const { bavail, bsize } = statfsSync(at)
      const free = bavail * bsize
      return free < LOW_DISK_BYTES
        ? fail('disk space', `${bytes(free)} free at ${at}`)
        : ok('disk space', `${bytes(free)} free at ${at}`)
    } catch (error) {
      // A directory that does not exist yet lies on its parent's disk.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || at === '/')
        return fail('disk space', String(error))
    }
  }
}

/** Whether the process that said it serves this directory is alive; the lock itself is never tried, which could hold up a start. */
export function checkLock(dir: string): Check {
  const read = (path: string): string | null => {
    try {
      return readFileSync(path, 'utf8')
    } catch {
      // Not there or not ours to read: then nothing is known to hold it.
      return null
    }
  }
  const pid = readServerFile(dir, read)?.pid ?? null
  if (pid === null) return note('lock', 'no server has left its name here')
  try {
    process.kill(pid, 0)
    return ok('lock', `held by process ${pid}`)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EPERM')
      return ok('lock', `held by process ${pid} of another user`)
    return note('lock', `process ${pid} is gone, so the lock is free`)
  }
}

/** GET over a unix socket; the body as text. */
function askSocket(socketPath: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const call = request(
      { socketPath, path, timeout: SOCKET_LIMIT_MS, headers: { host: 'localhost' } },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('error', reject)
        response.on('end', () => resolve(Buffer.concat(chunks).toString('utf8')))
      },
    )
    call.on('timeout', () => call.destroy(new Error(`no answer within ${SOCKET_LIMIT_MS} ms`)))
    call.on('error', reject)
    call.end()
  })
}

async function checkSocket(name: string, socketPath: string): Promise<Check> {
  try {
    const answer = JSON.parse(await askSocket(socketPath, '/version')) as {
      Version?: string
      ApiVersion?: string
    }
    return ok(name, `${answer.Version ?? '?'}, API ${answer.ApiVersion ?? '?'}, at ${socketPath}`)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    const why =
      code === 'ENOENT'
        ? 'not there'
        : code === 'ECONNREFUSED'
          ? 'nothing answers'
          : code === 'EACCES'
            ? 'not yours to use (is your user in its group?)'
            : message
    return note(name, `${socketPath}: ${why}`)
  }
}

interface EngineSurroundings {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly uid: number
}

/** Where an engine would be looked for, and what is there. */
export function checkEngines({ env, uid }: EngineSurroundings): Promise<Check[]> {
  const dockerHost = env['DOCKER_HOST']
  const docker =
    dockerHost !== undefined && !dockerHost.startsWith('unix://')
      ? Promise.resolve(note('docker', `DOCKER_HOST is ${dockerHost}; the server reports about it`))
      : checkSocket('docker', dockerHost?.slice('unix://'.length) ?? '/var/run/docker.sock')
  const runtime = env['XDG_RUNTIME_DIR'] ?? `/run/user/${uid}`
  const podman = checkSocket(
    'podman',
    uid === 0 ? '/run/podman/podman.sock' : join(runtime, 'podman/podman.sock'),
  )
  return Promise.all([docker, podman, Promise.resolve(checkLocal())])
}

function checkLocal(): Check {
  if (process.platform !== 'linux') return note('local', 'needs Linux')
  const missing = ['unshare', 'nsenter', 'mount', 'pivot_root'].filter((tool) => !onPath(tool))
  return missing.length === 0
    ? ok('local', 'util-linux is there (trial use; not a security boundary)')
    : note('local', `missing from util-linux: ${missing.join(', ')}`)
}

/** System tools are looked for where a service's short PATH would find them too. */
function onPath(tool: string): boolean {
  const dirs = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin', '/usr/bin', '/bin']
  return dirs.some((dir) => {
    try {
      accessSync(join(dir, tool), constants.X_OK)
      return true
    } catch {
      // Not in this one.
      return false
    }
  })
}

/** Rows named one by one; more are counted. */
const MAX_NAMED = 20

/** What the store itself knows not to be as it should. */
export function checkStore({ hold, waiting, quarantine, unreadable }: Recovery): Check[] {
  const out: Check[] = unreadable
    .slice(0, MAX_NAMED)
    .map((row) =>
      fail(
        'damaged row',
        `${row.table}/${row.id}: ${row.error}; others go on, and what it stands for is left alone`,
      ),
    )
  if (unreadable.length > MAX_NAMED) out.push(fail('damaged rows', `${unreadable.length} in all`))
  if (hold !== null) {
    const acts = waiting.filter((w) => w.what !== 'stays as it is until you act').length
    out.push(
      note(
        'hold',
        `${hold.cause}: nothing is removed and nothing expires since ${hold.since}; ${acts} sandboxes change once you say holdfast rebuild --confirm`,
      ),
    )
  }
  if (quarantine.length > 0) {
    const names = quarantine.slice(0, MAX_NAMED).map((q) => q.name)
    out.push(
      note(
        'quarantine',
        `${quarantine.length} objects on the engine carry our labels and no row knows them: ${names.join(', ')}`,
      ),
    )
  }
  return out.length === 0 ? [ok('store', 'every row can be read, nothing is held')] : out
}

/** What the server says about itself and its engine; a failure here is what the other commands would meet. */
export async function checkServer(
  connection: Connection,
  client: Client,
): Promise<{ checks: Check[]; exitCode: number }> {
  const where = `${connection.url} (from ${connection.urlFrom})`
  try {
    const info = await client.info()
    const engines = await client.engines()
    const recovery = await client.recovery()
    return {
      checks: [
        ok('server', `${where}, version ${info.version}, epoch ${info.epoch}, engine ${info.engine}`),
        ...engines.map((engine) => {
          const version =
            engine.info === undefined
              ? ''
              : `${engine.info.version}, API ${engine.info.apiVersion}, at ${engine.info.endpoint}`
          return engine.ok
            ? ok(`server's ${engine.id}`, version || 'answers')
            : fail(`server's ${engine.id}`, engine.error ?? 'does not answer')
        }),
        ...checkStore(recovery),
      ],
      exitCode: 0,
    }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    const hint = error.suggestion === undefined ? '' : ` ${error.suggestion}.`
    return {
      checks: [
        fail(
          'server',
          `${error.message}${hint} Address from ${connection.urlFrom}, key from ${connection.keyFrom}.`,
        ),
      ],
      exitCode: error.exitCode,
    }
  }
}
