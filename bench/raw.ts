import { Agent, request } from 'node:http'

export interface RawEngine {
  /** Makes a container as Holdfast makes it (with a volume, or without), starts it, and runs a first command in it. */
  firstCommand(image: string, volume: boolean): Promise<string>
  /** A command the way `docker exec` does it: made, started, read to its end, asked for its status. */
  exec(container: string, command: readonly string[]): Promise<number>
  /** Forcibly, with the volume that `firstCommand` made. */
  remove(container: string): Promise<void>
  close(): void
}

/** Docker's API over one kept connection, as fast as it can be called. */
export function rawEngine(socketPath: string): RawEngine {
  const agent = new Agent({ keepAlive: true })
  const volumes = new Map<string, string>()
  let made = 0

  function call<T>(method: string, path: string, body?: object): Promise<T> {
    return new Promise((resolve, reject) => {
      const text = body === undefined ? undefined : JSON.stringify(body)
      const headers =
        text === undefined
          ? {}
          : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }
      const req = request({ socketPath, method, path, agent, headers, timeout: 60_000 }, (res) => {
        const chunks: Buffer[] = []
        res.on('data', (chunk: Buffer) => chunks.push(chunk))
        res.on('error', reject)
        res.on('end', () => {
          const answer = Buffer.concat(chunks)
          if ((res.statusCode ?? 500) >= 400)
            reject(new Error(`Docker answered ${res.statusCode} to ${method} ${path}: ${answer.toString()}`))
          else
            resolve(
              (res.headers['content-type'] === 'application/json'
                ? JSON.parse(answer.toString())
                : answer) as T,
            )
        })
      })
      req.on('error', reject)
      req.on('timeout', () => req.destroy(new Error(`no answer to ${method} ${path}`)))
      req.end(text)
    })
  }

  async function exec(container: string, command: readonly string[]): Promise<number> {
    const { Id } = await call<{ Id: string }>('POST', `/containers/${container}/exec`, {
      Cmd: command,
      AttachStdout: true,
      AttachStderr: true,
    })
    await call<Buffer>('POST', `/exec/${Id}/start`, { Detach: false, Tty: false })
    return (await call<{ ExitCode: number }>('GET', `/exec/${Id}/json`)).ExitCode
  }

  return {
    async firstCommand(image, volume) {
      const name = `holdfast-bench-${process.pid}-${made++}`
      if (volume) await call('POST', '/volumes/create', { Name: name })
      const HostConfig = {
        Init: true,
        CapDrop: ['NET_RAW'],
        SecurityOpt: ['no-new-privileges'],
        PidsLimit: 4096,
        ...(volume
          ? {
              Mounts: [{ Type: 'volume', Source: name, Target: '/sandbox', VolumeOptions: { NoCopy: true } }],
            }
          : {}),
      }
      const { Id } = await call<{ Id: string }>('POST', `/containers/create?name=${name}`, {
        Image: image,
        Cmd: ['tail', '-f', '/dev/null'],
        HostConfig,
      })
      if (volume) volumes.set(Id, name)
      await call('POST', `/containers/${Id}/start`)
      const code = await exec(Id, ['echo', 'ready'])
      if (code !== 0) throw new Error(`the first command ended with ${code}`)
      return Id
    },
    exec,
    async remove(container) {
      await call('DELETE', `/containers/${container}?force=true`)
      const volume = volumes.get(container)
      if (volume !== undefined) await call('DELETE', `/volumes/${volume}`)
    },
    close: () => agent.destroy(),
  }
}
