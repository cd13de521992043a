import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, readFile, rename, stat, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pack } from 'tar-stream'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { CreateInstance, ExecRequest } from '../../src/engines/engine.ts'
import { probeIsolation } from '../../src/engines/local/index.ts'
import { statOf } from '../../src/engines/local/proc.ts'
import type { InstanceFacts } from '../../src/model/facts.ts'
import { finish, refused, until } from './conformance/rig.ts'
import { describeOn } from './describe-on.ts'
import { type LocalRig, localRig, openLocal } from './local-subject.ts'

const call = { limitMs: 60_000 }
const isRoot = process.getuid?.() === 0
const probed = await probeIsolation()
const namespaces = describeOn('local', probed === 'namespaces' ? null : probed.none)

let rig: LocalRig
const strangers: ChildProcess[] = []

async function setup(isolation: 'namespaces' | 'none'): Promise<void> {
  rig = await localRig(isolation)
}

/** Whatever a test has left, also a failed one. */
async function teardown(): Promise<void> {
  for (const child of strangers.splice(0)) child.kill('SIGKILL')
  for (const name of await readdir(join(rig.root, 'instances')).catch(() => [])) {
    const facts = await rig.engine.inspectInstance(name, call)
    if (facts !== null) await rig.engine.removeInstance(facts.id, call)
  }
  await rig.cleanup()
}

const request = (over: Partial<CreateInstance> = {}): CreateInstance => ({
  name: 'one',
  labels: {},
  image: 'host',
  entrypoint: ['sleep', 'infinity'],
  env: {},
  limits: {},
  mounts: [],
  workingDir: null,
  user: null,
  hostname: 'one',
  ...over,
})

async function make(over: Partial<CreateInstance> = {}): Promise<string> {
  return (await rig.engine.createInstance(request(over), call)).id
}

async function run(over: Partial<CreateInstance> = {}): Promise<string> {
  const id = await make(over)
  await rig.engine.startInstance(id, call)
  return id
}

async function facts(id: string): Promise<InstanceFacts> {
  const found = await rig.engine.inspectInstance(id, call)
  if (found === null) throw new Error(`${id} is absent`)
  return found
}

const ended = (id: string): Promise<InstanceFacts> =>
  until('the end', async () => {
    const f = await facts(id)
    return f.state === 'stopped' ? f : undefined
  })

async function sh(
  id: string,
  script: string,
  over: Partial<ExecRequest> = {},
): Promise<{ code: number | null; out: string; err: string }> {
  const done = await finish(
    await rig.engine.exec(id, { command: ['sh', '-c', script], stdin: false, ...over }, call),
  )
  return { code: done.code, out: done.stdout.toString(), err: done.stderr.toString() }
}

async function volume(name: string): Promise<CreateInstance['mounts'][number]['source']> {
  await rig.engine.createVolume({ name, labels: {}, sizeBytes: null }, call)
  return { kind: 'volume', name }
}

async function server(id: string, how = ''): Promise<ChildProcess> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'local-server.ts'), rig.root, id, how], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  strangers.push(child)
  await Promise.race([once(child.stdout as Readable, 'data'), once(child, 'exit')])
  return child
}

async function killed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  await once(child, 'exit')
}

const hostMounts = async (): Promise<string> => readFile('/proc/self/mountinfo', 'utf8')

namespaces('local: the server is killed', () => {
  beforeEach(() => setup('namespaces'))
  afterEach(teardown)

  test('a running instance goes on, is found again with its start time, and its end is known', async () => {
    const id = await make({ entrypoint: ['sh', '-c', 'while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 9'] })
    const first = await server(id)
    const before = await facts(id)
    await killed(first)
    const { init } = await rig.pids('one')
    expect(await facts(id)).toEqual(before)
    expect(before.state).toBe('running')
    await sh(id, ': > /tmp/end')
    await until('the end', () => (statOf(init) === null ? true : undefined))
    const after = await openLocal(rig.root, 'namespaces').inspectInstance(id, call)
    expect(after).toMatchObject({ state: 'stopped', exitCode: 9, startedAt: before.startedAt })
    if (after !== null) expect(await rig.engine.exitCause(after, call)).toBe('own')
  })

  test('killed when the state is written and the workload not let go: nothing runs, as if never started', async () => {
    const id = await make({ entrypoint: ['sh', '-c', 'echo ran; sleep infinity'] })
    const child = await server(id, 'die-before-go')
    expect(child.signalCode ?? (await once(child, 'exit'))[1]).toBe('SIGKILL')
    const { init, work } = await rig.pids('one').catch(() => ({ init: 0, work: 0 }))
    await until('the setup to end', () => (init === 0 || statOf(init) === null ? true : undefined))
    expect(work === 0 || statOf(work) === null).toBe(true)
    expect(await facts(id)).toMatchObject({ state: 'stopped', startedAt: null })
    const said: string[] = []
    for await (const chunk of await rig.engine.logs(id, { follow: false, sinceMs: 0, tail: null }, call))
      said.push(Buffer.from(chunk.data).toString())
    expect(said).toEqual([])
    await rig.engine.startInstance(id, call)
    expect((await facts(id)).state).toBe('running')
  })

  test("what another process is making is left alone, a dead one's is removed", async () => {
    await mkdir(join(rig.root, 'making', '999999-1'), { recursive: true })
    await mkdir(join(rig.root, 'making', `${process.pid}-${statOf(process.pid)?.start ?? ''}`, 'half'), {
      recursive: true,
    })
    await openLocal(rig.root, 'namespaces').listInstances(call)
    await until('the removal', async () =>
      (await readdir(join(rig.root, 'making'))).includes('999999-1') ? undefined : true,
    )
    expect(await readdir(join(rig.root, 'making'))).toHaveLength(1)
  })

  test('on a copy of the state, what runs on the original is unknown and left alone until it has ended', async () => {
    const mounts = [{ path: '/data', source: await volume('d'), readOnly: false, seed: false }]
    const id = await run({
      mounts,
      entrypoint: ['sh', '-c', `trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done`],
    })
    const copied = join(rig.root, '../copy')
    await mkdir(copied)
    // The kernel's own corner of a writable layer is closed to an ordinary user, and empty.
    const copy = 'tar -C "$0" --exclude "./instances/*/work/work" -cf - . | tar -C "$1" -xpf -'
    execFileSync('sh', ['-c', copy, rig.root, copied])
    const engine = openLocal(copied, 'namespaces')
    const elsewhere = /directory that .*copy.* was copied from/
    try {
      for (const attempt of [
        () => engine.listInstances(call),
        () => engine.inspectInstance('one', call),
        () => engine.startInstance(id, call),
        () => engine.stopInstance(id, 0, call),
        () => engine.removeInstance(id, call),
      ])
        await expect(attempt()).rejects.toThrow(elsewhere)
      expect(await facts(id)).toMatchObject({ state: 'running' })
      await sh(id, 'echo still here > /data/f')
      await rig.engine.stopInstance(id, 1_000, call)
      expect(await engine.inspectInstance('one', call)).toMatchObject({ state: 'stopped' })
    } finally {
      await engine.close()
    }
  })

  test('a state directory that was moved, not copied, holds what runs on it', async () => {
    const id = await run()
    const moved = join(rig.root, '../moved')
    await rename(rig.root, moved)
    const engine = openLocal(moved, 'namespaces')
    try {
      expect(await engine.inspectInstance(id, call)).toMatchObject({ state: 'running' })
    } finally {
      await engine.close()
      await rename(moved, rig.root)
    }
  })
})

namespaces('local: identity', () => {
  beforeEach(() => setup('namespaces'))
  afterEach(teardown)

  const rewrite = async (change: (state: Record<string, unknown>) => void): Promise<void> => {
    const path = join(rig.root, 'instances/one/state.json')
    const state = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>
    change(state)
    await writeFile(path, JSON.stringify(state))
  }

  test('a reused pid is another process, and is never signalled', async () => {
    const id = await run()
    await rig.engine.stopInstance(id, 100, call)
    const stranger = spawn('sleep', ['infinity'], { stdio: 'ignore' })
    strangers.push(stranger)
    await rewrite((s) => {
      s['phase'] = 'started'
      s['init'] = { pid: stranger.pid, start: '1' }
      s['work'] = { pid: stranger.pid, start: '1' }
    })
    expect((await facts(id)).state).toBe('stopped')
    await rewrite((s) => (s['phase'] = 'started'))
    await rig.engine.stopInstance(id, 100, call)
    await rewrite((s) => (s['phase'] = 'started'))
    await rig.engine.removeInstance(id, call)
    expect(stranger.signalCode).toBeNull()
    expect(statOf(stranger.pid ?? 0)?.state).not.toBe('Z')
  })

  test('after another boot an instance is stopped, and how it ended is not known', async () => {
    const id = await run()
    const { init } = await rig.pids('one')
    process.kill(init, 'SIGKILL')
    await until('the end', () => (statOf(init) === null ? true : undefined))
    await rewrite((s) => Object.assign(s, { phase: 'started', boot: 'an earlier boot' }))
    const after = await facts(id)
    expect(after).toMatchObject({ state: 'stopped', exitCode: null, finishedAt: null })
    expect(await rig.engine.exitCause(after, call)).toBeNull()
  })
})

namespaces('local: what an instance can see and reach', () => {
  beforeEach(() => setup('namespaces'))
  afterEach(teardown)

  test('the host is a read-only /usr, and nothing of it is mounted over or left behind', async () => {
    const id = await run()
    expect(await hostMounts()).not.toContain(rig.root)
    const seen = await sh(id, 'ls /; echo; touch /usr/x 2>&1; cat /etc/shadow 2>&1; ls /proc/1/root; echo $$')
    expect(seen.out).not.toContain('old_root')
    expect(seen.out).toMatch(/Read-only file system/)
    expect(seen.out).toMatch(/shadow.*No such file/)
    expect((await sh(id, `cat ${JSON.stringify(join(rig.root, 'instances/one/meta.json'))}`)).code).not.toBe(
      0,
    )
    await rig.engine.removeInstance(id, call)
    expect(await hostMounts()).not.toContain(rig.root)
  })

  test('a working directory is inside, also its parents', async () => {
    const id = await run({ workingDir: '/made/for/it' })
    expect((await sh(id, 'pwd; cd ../../..; pwd; ls -d usr')).out).toBe('/made/for/it\n/\nusr\n')
  })

  test("ports of the host that are not the instance's are refused", async () => {
    const listener = createServer((socket) => socket.end('of the host'))
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve))
    try {
      const id = await run()
      const address = listener.address()
      const port = typeof address === 'object' && address !== null ? address.port : 0
      await refused(rig.engine.dial(id, port, call), 'failed', 'none')
    } finally {
      listener.close()
    }
  })

  test('scripts can open /dev/stdout and /dev/stderr, as a workload and as an exec', async () => {
    const script = 'echo one > /dev/stderr; echo two > /dev/stderr; echo out > /dev/stdout'
    const id = await run({ entrypoint: ['sh', '-c', `${script}; sleep infinity`] })
    expect(await sh(id, script)).toEqual({ code: 0, out: 'out\n', err: 'one\ntwo\n' })
    await until('the log', async () => {
      let text = ''
      for await (const chunk of await rig.engine.logs(id, { follow: false, sinceMs: 0, tail: null }, call))
        text += `${chunk.stream}: ${Buffer.from(chunk.data).toString()}`
      return text === 'stdout: out\nstderr: one\ntwo\n' ? true : undefined
    })
  })

  test("variables that steer the host's programs arrive inside and have no effect outside", async () => {
    const id = await run({ env: { SECRET: 'instance-secret' } })
    const env = { LD_PRELOAD: '/holdfast-no-such-library.so', SECRET2: 'exec-secret' }
    const done = await sh(
      id,
      'echo "$LD_PRELOAD"; env | grep -c HOLDFAST_VARIABLE; cat /proc/[0-9]*/cmdline | tr "\\0" " "',
      { env },
    )
    expect(done.out.split('\n').slice(0, 2)).toEqual(['/holdfast-no-such-library.so', '0'])
    expect(done.out).not.toMatch(/instance-secret|exec-secret/)
  })

  test('a image that is a directory must lie under the allowed paths after all links', async () => {
    await symlink('/etc', join(rig.allowed, 'out'))
    await refused(make({ image: `dir:${rig.allowed}/out` }), 'image-missing', 'none')
    await refused(make({ image: 'dir:/usr' }), 'image-missing', 'none')
    const mounts = [
      {
        path: '/m',
        source: { kind: 'host' as const, path: join(rig.allowed, 'out') },
        readOnly: true,
        seed: false,
      },
    ]
    await refused(make({ mounts }), 'denied', 'none')
  })

  test('nothing can be mounted over the kernel, the root or the read-only parts', async () => {
    const source = await volume('v')
    for (const path of ['/', '/proc', '/dev/x', '/a/../b', 'relative'])
      await refused(make({ mounts: [{ path, source, readOnly: false, seed: false }] }), 'invalid', 'none')
    const id = await make({
      mounts: [{ path: '/usr/holdfast/not/there', source, readOnly: false, seed: false }],
    })
    await refused(rig.engine.startInstance(id, call), 'invalid', 'none')
    await expect(stat('/usr/holdfast')).rejects.toThrow('ENOENT')
  })
})

namespaces('local: planted links lead nowhere outside', () => {
  beforeEach(() => setup('namespaces'))
  afterEach(teardown)

  test('above a mount point', async () => {
    const outside = join(rig.root, '../outside')
    await mkdir(outside)
    const mounts = [{ path: '/data/deep', source: await volume('v'), readOnly: false, seed: false }]
    const id = await run({ mounts })
    await sh(id, `echo kept > /data/deep/f; mv /data /away; ln -s ${outside} /data`)
    await rig.engine.stopInstance(id, 100, call)
    await rig.engine.startInstance(id, call)
    expect(await readdir(outside)).toEqual([])
    expect((await sh(id, 'cat /data/deep/f')).out).toBe('kept\n')
  })

  test('in copies in and out of a stopped instance, and in the files that are made for it', async () => {
    const outside = join(rig.root, '../outside')
    await mkdir(outside)
    await writeFile(join(outside, 'secret'), 'secret')
    const id = await run()
    await sh(
      id,
      `ln -s ${outside} /tmp/x; rm -rf /etc/hosts /etc/hostname; ln -s ${outside}/made /etc/hosts; ln -s ${outside}/made /etc/hostname`,
    )
    await rig.engine.stopInstance(id, 100, call)
    await refused(rig.engine.copyOut(id, '/tmp/x/secret', call), 'not-found', 'none')
    const tar = pack()
    tar.entry({ name: 'f' }, 'planted')
    tar.finalize()
    await refused(rig.engine.copyIn(id, '/tmp/x', Readable.from(tar), call), 'not-found', 'none')
    await rig.engine.startInstance(id, call)
    expect(await readdir(outside)).toEqual(['secret'])
  })

  test('in what an image seeds', async () => {
    // Nothing of it is run, so it needs no programs.
    const image = join(rig.allowed, 'image')
    await mkdir(image)
    await symlink('/etc', join(image, 'sandbox'))
    const mounts = [{ path: '/sandbox', source: await volume('v'), readOnly: false, seed: true }]
    await make({ image: `dir:${image}`, mounts })
    // What is seeded is the image's own /etc.
    expect((await readdir(join(rig.root, 'volumes/v/data'))).toSorted()).toEqual([
      'hostname',
      'hosts',
      'resolv.conf',
    ])
  })
})

namespaces('local: logs', () => {
  beforeEach(() => setup('namespaces'))
  afterEach(teardown)

  test('a log that grows for ever keeps its end, takes bounded space, and its writer never notices', async () => {
    const id = await run({
      entrypoint: [
        'sh',
        '-c',
        'head -c 32000000 /dev/zero | tr "\\0" "x" | fold -w 999; echo; echo last; sleep infinity',
      ],
    })
    const path = join(rig.root, 'instances/one/out.log')
    await until('the writing', async () => ((await stat(path)).size > 32_000_000 ? true : undefined))
    const abort = new AbortController()
    const events = (async () => {
      for await (const _ of rig.engine.events(abort.signal)) void _
    })()
    await until('the trimming', async () => ((await stat(path)).blocks * 512 < 25_000_000 ? true : undefined))
    abort.abort()
    await events
    await until('the last line', async () => {
      let text = ''
      for await (const chunk of await rig.engine.logs(id, { follow: false, sinceMs: 0, tail: 2 }, call))
        text += Buffer.from(chunk.data).toString()
      return text.endsWith('\nlast\n') ? true : undefined
    })
    let all = 0
    for await (const chunk of await rig.engine.logs(id, { follow: false, sinceMs: 0, tail: null }, call)) {
      expect(chunk.data.includes(0)).toBe(false)
      all += chunk.data.length
    }
    expect(all).toBeGreaterThan(15_000_000)
  })
})

const asRoot = (name: string, tests: () => void): void => {
  if (isRoot) namespaces(name, tests)
}

// An ordinary user has no limits to test.
asRoot('local: limits, as root', () => {
  beforeEach(() => setup('namespaces'))
  afterEach(teardown)

  const groups = async (): Promise<string[]> => {
    const all = await Promise.all(
      ['memory', 'pids', 'cpu', 'freezer', 'unified', ''].map((c) =>
        readdir(join('/sys/fs/cgroup', c), { recursive: false }).catch(() => []),
      ),
    )
    return all.flat().filter((n) => n.startsWith('holdfast-'))
  }

  test('too much memory ends the workload, which is told, and no group is left', async () => {
    const before = await groups()
    const id = await run({
      limits: { memoryBytes: 16 * 1024 * 1024, pids: 64, cpuMillis: 500 },
      entrypoint: ['sh', '-c', 'exec tail /dev/zero'],
    })
    const after = await ended(id)
    expect(after).toMatchObject({ exitCode: 137, oomKilled: true })
    expect(await groups()).toEqual(before)
  })

  test('an exec is under the limits as well, and a pause leaves no group after the end', async () => {
    const before = await groups()
    const id = await run({ limits: { pids: 20 } })
    const forks = await sh(id, 'i=0; while [ $i -lt 40 ]; do sleep 60 >/dev/null 2>&1 & i=$((i+1)); done')
    expect(forks.err).toMatch(/fork|Resource temporarily unavailable/i)
    await rig.engine.pauseInstance(id, call)
    await rig.engine.unpauseInstance(id, call)
    await rig.engine.removeInstance(id, call)
    expect(await groups()).toEqual(before)
  })

  test('other users have their own rights, and no way to the instance files', async () => {
    const id = await run({ user: '1000' })
    expect((await sh(id, 'id -u; touch /etc/x 2>&1; echo $HOME')).out).toMatch(
      /^1000\n.*Permission denied\n\/home\/user\n$/s,
    )
    expect((await sh(id, 'id -u', { user: 'root' })).out).toBe('0\n')
  })
})

describe('local: without isolation', () => {
  beforeEach(() => setup('none'))
  afterEach(teardown)

  test('a process that has left the session is ended with the instance', async () => {
    const id = await run({ entrypoint: ['sh', '-c', 'setsid sleep 987654 & echo $!; sleep infinity'] })
    const pid = await until('its number', async () => {
      const text = await readFile(join(rig.root, 'instances/one/out.log'), 'utf8').catch(() => '')
      return text.endsWith('\n') ? Number(text) : undefined
    })
    await rig.engine.stopInstance(id, 1_000, call)
    await until('it to be gone', () => {
      const left = statOf(pid)
      return left === null || left.state === 'Z' ? true : undefined
    })
  })

  test('the workspace is the working directory, and every volume has a name in the environment', async () => {
    const mounts = [
      { path: '/data', source: await volume('d'), readOnly: false, seed: false },
      { path: '/sandbox', source: await volume('w'), readOnly: false, seed: false },
    ]
    const id = await run({ mounts })
    await sh(id, 'echo there > here; echo data > "$HOLDFAST_MOUNT_0/f"')
    expect(await readFile(join(rig.root, 'volumes/w/data/here'), 'utf8')).toBe('there\n')
    expect(await readFile(join(rig.root, 'volumes/d/data/f'), 'utf8')).toBe('data\n')
    expect((await sh(id, 'cat f', { workingDir: '/data' })).out).toBe('data\n')
  })
})
