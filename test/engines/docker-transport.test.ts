import { execFileSync, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { DockerOptions } from '../../src/engines/docker/index.ts'
import type { Call, Engine } from '../../src/engines/engine.ts'
import { LABEL } from '../../src/model/labels.ts'
import { type PrivateDaemon, startPrivateDaemon } from '../support/docker-daemon.ts'
import { type Proxy, type ProxyHooks, startDockerProxy } from '../support/docker-proxy.ts'
import { DOCKER_SOCKET, dockerEngine, dockerAbsent, programsMissing } from '../support/docker-subject.ts'
import { ensureTestImage, TEST_IMAGE } from '../support/image.ts'
import { freePort, type Sshd, startSshd } from '../support/sshd.ts'
import { collect, finish, refused, TEST_RUN_LABEL, until, within } from './conformance/rig.ts'
import { describeOn } from './describe-on.ts'

const call: Call = { limitMs: 60_000 }
const missing = (await dockerAbsent()) ?? programsMissing('dockerd', 'ip', 'openssl', 'sshd', 'ssh', 'docker')
const onDocker = describeOn('docker', missing)

let dir = ''
const undo: (() => Promise<unknown>)[] = []
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-transport-'))
  if (missing === null) await ensureTestImage(DOCKER_SOCKET)
})
/** The last thing first; one that fails does not keep the others from being undone. */
async function undoAll(): Promise<void> {
  const errors: unknown[] = []
  for (const each of undo.splice(0).toReversed()) await each().catch((error: unknown) => errors.push(error))
  if (errors.length > 0) throw new AggregateError(errors, 'the test left something behind')
}
afterEach(undoAll)
afterAll(() => rm(dir, { recursive: true, force: true }))

function engineAt(host: string, over: Partial<DockerOptions> = {}): Engine {
  const engine = dockerEngine(host, over)
  undo.push(() => engine.close())
  return engine
}

let count = 0
/** A running container on the engine, removed after the test. */
async function running(engine: Engine): Promise<string> {
  const name = `hft-${process.pid}-${(count += 1)}`
  const labels = { [LABEL.installation]: 'transport-test', [TEST_RUN_LABEL]: String(process.pid) }
  const none = {
    env: {},
    limits: {},
    mounts: [],
    workingDir: null,
    user: null,
    hostname: 'transport',
    entrypoint: [],
  }
  const { id } = await engine.createInstance({ name, labels, image: TEST_IMAGE, ...none }, call)
  undo.push(() => engine.removeInstance(id, call))
  await engine.startInstance(id, call)
  return id
}

/** What every transport must carry: calls, both directions of a hijacked stream, a half-close, and large data. */
async function carriesAll(engine: Engine): Promise<void> {
  const info = await engine.info(call)
  expect(info.apiVersion).toMatch(/^1\.\d+$/)
  const id = await running(engine)
  expect((await engine.inspectInstance(id, call))?.state).toBe('running')
  const cat = await engine.exec(id, { command: ['sh', '-c', 'cat; echo end >&2'], stdin: true }, call)
  const data = Buffer.alloc(3_000_000, 'holdfast ')
  const feed = async (): Promise<void> => {
    await cat.write(data)
    cat.end()
  }
  const [done] = await Promise.all([finish(cat), feed()])
  expect(done).toMatchObject({ code: 0 })
  expect(done.stdout.equals(data)).toBe(true)
  expect(done.stderr.toString()).toBe('end\n')
  const tar = await collect(await engine.copyOut(id, '/bin/busybox', call))
  expect(tar.length).toBeGreaterThan(500_000)
}

function certificates(into: string): void {
  const openssl = (...args: string[]): void =>
    void execFileSync('openssl', args, { cwd: into, stdio: 'pipe' })
  const key = (name: string): void =>
    openssl('genpkey', '-quiet', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', name)
  for (const ca of ['ca', 'other-ca']) {
    key(`${ca}-key.pem`)
    openssl(
      'req',
      '-x509',
      '-new',
      '-key',
      `${ca}-key.pem`,
      '-days',
      '2',
      '-subj',
      `/CN=${ca}`,
      '-out',
      `${ca}.pem`,
    )
  }
  const sign = (name: string, usage: string, alternative: string): void => {
    key(`${name}key.pem`)
    writeFileSync(join(into, 'ext'), `extendedKeyUsage=${usage}\n${alternative}`)
    openssl('req', '-new', '-key', `${name}key.pem`, '-subj', '/CN=test', '-out', 'csr')
    const out = ['-days', '2', '-extfile', 'ext', '-out', `${name}cert.pem`]
    openssl('x509', '-req', '-in', 'csr', '-CA', 'ca.pem', '-CAkey', 'ca-key.pem', '-CAcreateserial', ...out)
  }
  sign('server-', 'serverAuth', 'subjectAltName=IP:127.0.0.1,DNS:localhost')
  sign('', 'clientAuth', '')
}

onDocker('tcp with TLS', () => {
  let daemon: PrivateDaemon | undefined
  let port = 0
  let certs = ''
  beforeAll(async () => {
    certs = await mkdtemp(join(tmpdir(), 'hf-certs-'))
    certificates(certs)
    port = await freePort()
    const files = [
      '--tlscacert',
      join(certs, 'ca.pem'),
      '--tlscert',
      join(certs, 'server-cert.pem'),
      '--tlskey',
      join(certs, 'server-key.pem'),
    ]
    daemon = await startPrivateDaemon({
      args: [
        '--host',
        `tcp://127.0.0.1:${port}`,
        '--host',
        `tcp://127.0.0.2:${port}`,
        '--tlsverify',
        ...files,
      ],
    })
    await ensureTestImage(daemon.socketPath)
  })
  afterAll(async () => {
    await daemon?.destroy()
    await rm(certs, { recursive: true, force: true })
  })

  test('carries all calls, and ports are refused because the engine may be anywhere', async () => {
    const engine = engineAt(`tcp://127.0.0.1:${port}`, { certPath: certs })
    await carriesAll(engine)
    expect((await engine.info(call)).run.boot).toBeNull()
    expect(engine.capabilities.dial).toBe(false)
    await refused(engine.dial('x', 80, call), 'unsupported', 'none')
  })

  test('an engine with a certificate of another authority is refused', async () => {
    const wrong = join(dir, 'wrong')
    execFileSync('cp', ['-r', certs, wrong])
    execFileSync('cp', [join(wrong, 'other-ca.pem'), join(wrong, 'ca.pem')])
    await refused(engineAt(`tcp://127.0.0.1:${port}`, { certPath: wrong }).info(call), 'denied', 'none')
  })

  test('an engine under a name that its certificate has not is refused', async () => {
    await refused(engineAt(`tcp://127.0.0.2:${port}`, { certPath: certs }).info(call), 'denied', 'none')
  })

  test('missing certificate files are named', async () => {
    const error = await refused(
      engineAt(`tcp://127.0.0.1:${port}`, { certPath: join(dir, 'none') }).info(call),
      'denied',
      'none',
    )
    expect(error.message).toContain('ca.pem')
  })

  test('without TLS only this machine is spoken to, unless it was allowed', () => {
    expect(() => dockerEngine('tcp://10.0.0.1:2375')).toThrow(/without TLS/)
    engineAt('tcp://10.0.0.1:2375', { allowPlainTcp: true })
    engineAt('tcp://127.0.0.1:2375')
  })
})

onDocker('ssh', () => {
  const servers: Sshd[] = []
  const server = async (config: readonly string[] = []): Promise<Sshd> => {
    const sshd = await startSshd(config)
    servers.push(sshd)
    return sshd
  }
  afterAll(async () => {
    for (const each of servers) await each.close()
  })

  /** The processes whose arguments name this sshd's client configuration. */
  const clients = (sshd: Sshd): number[] =>
    readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && existsSync(`/proc/${name}/cmdline`))
      .filter((name) => {
        try {
          return readFileSync(`/proc/${name}/cmdline`, 'utf8').includes(sshd.configFile)
        } catch {
          // It ended between the listing and the look.
          return false
        }
      })
      .map(Number)

  test('carries all calls through a forwarded socket, and leaves no process behind', async () => {
    const sshd = await server()
    const engine = engineAt(`ssh://${sshd.address}`, { ssh: { configFile: sshd.configFile } })
    await carriesAll(engine)
    expect(clients(sshd).length).toBeGreaterThan(0)
    await undoAll()
    await until('ssh to end', () => clients(sshd).length === 0 || undefined)
    await refused(engine.info(call), 'unreachable', 'none')
  })

  test('carries all calls through dial-stdio where forwarding is forbidden', async () => {
    const sshd = await server(['AllowStreamLocalForwarding no'])
    await carriesAll(engineAt(`ssh://${sshd.address}`, { ssh: { configFile: sshd.configFile } }))
    await undoAll()
    await until('ssh to end', () => clients(sshd).length === 0 || undefined)
  })

  test('an unknown host key is refused, and nothing is learnt from it', async () => {
    const sshd = await server()
    const ssh = { configFile: sshd.strangerConfigFile }
    const error = await refused(engineAt(`ssh://${sshd.address}`, { ssh }).info(call), 'denied', 'none')
    expect(error.message).toMatch(/host key/i)
    await refused(engineAt(`ssh://${sshd.address}`, { ssh }).info(call), 'denied', 'none')
  })

  test('a server that is not there is unreachable, and an engine that is not there too', async () => {
    const sshd = await server(['AllowStreamLocalForwarding no', 'ForceCommand exit 7'])
    const nobody = `ssh://root@127.0.0.1:${await freePort()}`
    const ssh = { configFile: sshd.configFile }
    const away = await refused(engineAt(nobody, { ssh }).info(call), 'unreachable', 'none')
    expect(away.message).toMatch(/refused/)
    await refused(engineAt(`ssh://${sshd.address}`, { ssh }).info(call), 'unreachable', 'none')
  })

  test('a tunnel that broke is opened anew by the next call', async () => {
    const sshd = await server()
    const engine = engineAt(`ssh://${sshd.address}`, { ssh: { configFile: sshd.configFile } })
    await engine.info(call)
    const before = clients(sshd)
    for (const pid of before) process.kill(pid, 'SIGKILL')
    await until('ssh to end', () => clients(sshd).every((pid) => !before.includes(pid)) || undefined)
    await until('the engine to answer again', () =>
      engine.info(call).then(
        () => true,
        () => undefined,
      ),
    )
  })

  test('ssh ends with the process that opened it, even when that is killed', async () => {
    const sshd = await server()
    const script = `
      import { createDockerEngine } from './src/engines/docker/index.ts'
      import { systemClock } from './src/server/system.ts'
      const engine = createDockerEngine({ id: 'd', host: process.argv[1], clock: systemClock(), ssh: { configFile: process.argv[2] } })
      await engine.info({ limitMs: 30000 })
      console.log('up')
      setInterval(() => undefined, 1000)`
    const args = ['--input-type=module', '-e', script, '--', `ssh://${sshd.address}`, sshd.configFile]
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    const up = new Promise((resolve, reject) => {
      child.stdout.once('data', resolve)
      child.once('exit', () => reject(new Error('the process ended')))
    })
    await within('the process to be connected', up)
    child.kill('SIGKILL')
    await until('ssh to end', () => clients(sshd).length === 0 || undefined)
  })
})

onDocker('what comes between', () => {
  const between = async (hooks: ProxyHooks): Promise<{ proxy: Proxy; engine: Engine }> => {
    const proxy = await startDockerProxy(join(dir, `proxy-${(count += 1)}.sock`), DOCKER_SOCKET, hooks)
    undo.push(() => proxy.close())
    return { proxy, engine: engineAt(proxy.host) }
  }
  const direct = (): Engine => engineAt(`unix://${DOCKER_SOCKET}`)

  test('output that arrives with the upgrade itself is not lost', async () => {
    const id = await running(direct())
    const { engine } = await between({ holdMs: 400 })
    const done = await finish(
      await engine.exec(id, { command: ['sh', '-c', 'echo early; echo other >&2'], stdin: false }, call),
    )
    expect(done.stdout.toString()).toBe('early\n')
    expect(done.stderr.toString()).toBe('other\n')
    expect(done.code).toBe(0)
  })

  test('the version is what both sides speak, and what they do not share is refused in words', async () => {
    const answers = (version: object) => (request: string, client: import('node:net').Socket) => {
      if (!request.startsWith('GET /version ')) return false
      const body = JSON.stringify(version)
      client.write(
        `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      )
      return true
    }
    const older = await between({
      onRequest: answers({ Version: '19.03', ApiVersion: '1.40', MinAPIVersion: '1.12' }),
    })
    expect((await older.engine.info(call)).apiVersion).toBe('1.40')
    const ancient = await between({
      onRequest: answers({ Version: '17.03', ApiVersion: '1.27', MinAPIVersion: '1.12' }),
    })
    expect((await refused(ancient.engine.info(call), 'unsupported', 'none')).message).toContain('1.27')
    const future = await between({
      onRequest: answers({ Version: '40.0', ApiVersion: '1.99', MinAPIVersion: '1.80' }),
    })
    await refused(future.engine.info(call), 'unsupported', 'none')
  })

  test('a 404 that is not the engine’s own is no proof of absence', async () => {
    const { engine } = await between({
      onRequest(request, client) {
        if (!request.includes('/containers/') && !request.includes('/volumes/')) return false
        client.write('HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nnope\n')
        return true
      },
    })
    await refused(engine.inspectInstance('hft-nobody', call), 'failed', 'none')
    await refused(engine.inspectVolume('hft-nobody', call), 'failed', 'none')
    await refused(engine.removeVolume('hft-nobody', call), 'failed', 'unknown')
  })

  test('a change whose answer was lost has an unknown effect, a read has none', async () => {
    const id = await running(direct())
    let cut = ''
    const { engine } = await between({
      onRequest(request, client) {
        if (cut === '' || !request.includes(cut)) return false
        client.destroy()
        return true
      },
    })
    await engine.info(call)
    cut = '/pause'
    await refused(engine.pauseInstance(id, call), 'unreachable', 'unknown')
    cut = '/json'
    await refused(engine.inspectInstance(id, call), 'unreachable', 'none')
    cut = ''
    expect(await engine.inspectInstance(id, call)).toMatchObject({ state: 'running', paused: false })
  })

  test('a list in which one look fails is no list', async () => {
    const id = await running(direct())
    const { engine } = await between({
      onRequest(request, client) {
        if (!request.includes(`/containers/${id}/json`)) return false
        const body = '{"message":"the disk is on fire"}'
        client.write(
          `HTTP/1.1 500 Oops\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        )
        return true
      },
    })
    expect((await refused(engine.listInstances(call), 'failed', 'none')).message).toContain('on fire')
  })

  test('a fence is asked when the connection is there, not before', async () => {
    const order: string[] = []
    const { engine } = await between({
      onRequest(request) {
        order.push(request.split(' ').slice(0, 2).join(' '))
        return false
      },
    })
    const fence = (): void => void order.push('fence')
    const name = `hft-vol-${process.pid}`
    await engine.createVolume(
      { name, labels: { [TEST_RUN_LABEL]: String(process.pid) }, sizeBytes: null },
      { ...call, fence },
    )
    undo.push(() => direct().removeVolume(name, call))
    expect(order.map((line) => line.replace(/\/v1\.\d+/, ''))).toEqual([
      'GET /version',
      'fence',
      'POST /volumes/create',
    ])
  })

  test('a socket that nobody listens at is unreachable', async () => {
    const engine = engineAt(`unix://${join(dir, 'nobody.sock')}`)
    await refused(engine.info(call), 'unreachable', 'none')
    const json = { name: 'x', labels: {}, sizeBytes: null }
    await refused(engine.createVolume(json, call), 'unreachable', 'none')
  })
})
