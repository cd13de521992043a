import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Recovery } from '@holdfast/client'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { WORKLOAD } from '../campaign/model.ts'
import { assertData, engineId, leaveNothing, make, putData, reach } from '../campaign/stage.ts'
import { until } from '../campaign/until.ts'
import { openRig, wipe, type Rig, type World } from '../campaign/world.ts'
import { dockerMissing } from '../support/docker-subject.ts'
import { rawDocker } from '../support/docker-http.ts'
import { DOCKER_SOCKET } from '../support/docker-subject.ts'
import { ENTRY } from '../support/server.ts'

const missing = await dockerMissing()
/** Sandboxes that are being made while the backup is taken. */
const LOAD = 6

interface Result {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

function suite(kind: World['kind']): void {
  let rig: Rig
  let dir: string
  let installation: string

  async function hf(...args: string[]): Promise<Result> {
    const child = spawn(process.execPath, [ENTRY, ...args], {
      env: {
        ...process.env,
        HOLDFAST_STATE_DIR: rig.server.stateDir,
        HOLDFAST_SERVER: rig.server.url,
        HOLDFAST_API_KEY: rig.server.apiKey,
        HOLDFAST_ENGINE: kind,
        HOLDFAST_TEST: '1',
        NO_COLOR: '1',
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let out = ''
    let err = ''
    child.stdout.on('data', (d: Buffer) => (out += d.toString()))
    child.stderr.on('data', (d: Buffer) => (err += d.toString()))
    const [code] = (await once(child, 'close')) as [number | null]
    return { code, out, err }
  }
  async function ok(...args: string[]): Promise<string> {
    const result = await hf(...args)
    expect(result, `holdfast ${args.join(' ')}`).toMatchObject({ code: 0 })
    return result.out
  }
  const recovery = (): Promise<Recovery> => rig.server.client.recovery()

  /** Each instance of the installation with what tells one life of it from the next. */
  async function lives(): Promise<Record<string, string>> {
    const all: Record<string, string> = {}
    for (const i of await rig.world.instances(installation)) {
      const life = await rig.world.life(i.id)
      all[i.name] = `${life?.id} ${life?.startedAt} ${i.running}`
    }
    return all
  }
  const volumes = async (): Promise<string[]> => (await rig.world.volumes(installation)).toSorted()

  /** No call that makes, ends or removes anything was sent since the server started. */
  async function still(): Promise<void> {
    const steps = await rig.server.steps()
    expect(Object.entries(steps).filter(([kind_, n]) => kind_ !== 'pull-image' && n > 0)).toEqual([])
  }

  async function leftAlone(): Promise<void> {
    await until('every row was looked at', 60_000, async () => {
      const { items } = await rig.server.client.sandboxes.page({ pageSize: 100 })
      return items.every((s) => !['Pending', 'Unknown'].includes(s.status.state)) ? items : null
    })
  }

  async function removeAll(): Promise<void> {
    await leaveNothing(rig).catch(async (error: unknown) => {
      throw new Error(JSON.stringify(await rig.server.client.audit(), null, 2), { cause: error })
    })
  }

  describe(`after a loss: ${kind}`, () => {
    beforeAll(async () => {
      dir = mkdtempSync(join(tmpdir(), 'hft-backup-'))
      rig = await openRig(kind)
      await rig.server.start()
      installation = (await rig.server.client.info()).installation
    })
    afterAll(async () => {
      await rig.server.kill()
      const problems = await wipe(rig.world, installation)
      if (kind === 'docker') await rawDocker(DOCKER_SOCKET, 'DELETE', `/volumes/hft-theirs-${installation}`)
      await rig.destroy()
      rmSync(dir, { recursive: true, force: true })
      expect(problems).toEqual([])
    })

    test('a backup taken under load is restored: what runs runs on, what is newer is quarantined, nothing goes', async () => {
      const { server } = rig
      const old = await make(rig, 'old')
      const sum = await putData(server, old.id)
      const deleted = await make(rig, 'deleted')
      const loading = Promise.all(
        Array.from({ length: LOAD }, (_, n) =>
          server.client.sandboxes.create({
            name: `load-${n}`,
            image: { uri: rig.world.image },
            entrypoint: [...WORKLOAD],
            stopGraceSeconds: 2,
          }),
        ),
      )
      const file = join(dir, 'first.tar')
      const [, created] = await Promise.all([ok('backup', file), loading])
      for (const { id } of created) await reach(server, id, 'Running')
      await server.client.sandboxes.remove(deleted.id)
      const newer = [await make(rig, 'newer-1'), await make(rig, 'newer-2')]
      await until('the deleted one is gone', 60_000, async () =>
        (await rig.world.instances(installation)).every((i) => i.sandbox !== deleted.id) ? true : null,
      )
      const before = { lives: await lives(), volumes: await volumes() }
      expect(Object.keys(before.lives)).toHaveLength(1 + LOAD + newer.length)

      expect(await hf('restore', '--force', file), 'while the server runs').toMatchObject({ code: 4 })
      await server.kill()
      expect(await hf('restore', file), 'over a store').toMatchObject({ code: 4 })
      await ok('restore', '--force', file)
      await server.start()
      await leftAlone()
      expect({ lives: await lives(), volumes: await volumes() }).toEqual(before)
      await assertData(server, old.id, sum)
      const names = (await recovery()).quarantine.map((q) => q.name)
      for (const s of newer) expect(names).toContain(`hf-${s.id}-1`)
      expect(await hf('rm', 'old')).toMatchObject({ code: 4, err: expect.stringContaining('--confirm') })
      expect((await reach(server, deleted.id, 'Lost')).status.state).toBe('Lost')
      await still()
      expect((await hf('doctor')).out).toMatch(/hold .*note/)

      await ok('rebuild', '--confirm')
      expect((await recovery()).hold).toBeNull()
      expect(await lives()).toMatchObject(before.lives)
      for (const q of (await recovery()).quarantine) {
        if (q.kind === 'instance') await rig.world.remove(q.engineId)
      }
      for (const q of (await recovery()).quarantine)
        if (q.kind === 'volume') await rig.world.removeVolume(q.name)
      await removeAll()
    })

    test('a rebuild over a restored store takes over what is newer than the backup', async () => {
      const { server } = rig
      const old = await make(rig, 'kept-name', { metadata: { team: 'a' } })
      const file = join(dir, 'second.tar')
      await ok('backup', file)
      const fresh = await make(rig, 'fresh')
      const sum = await putData(server, fresh.id)
      await server.client.sandboxes.update(old.id, { env: { CHANGED: '1' } })
      await until('the update is applied', 60_000, async () => {
        const s = await server.client.sandboxes.get(old.id)
        return s.instance?.number === 2 && s.status.state === 'Running' ? s : null
      })
      const before = { lives: await lives(), volumes: await volumes() }
      await server.kill()
      await ok('restore', '--force', file)
      await server.start()
      await leftAlone()
      expect({ lives: await lives(), volumes: await volumes() }).toEqual(before)
      expect(await hf('rebuild'), 'while the server runs').toMatchObject({ code: 4 })
      await server.stop()
      const merged = JSON.parse(await ok('rebuild', '-o', 'json')) as Record<string, unknown>
      expect(merged).toMatchObject({ how: 'merged', merged: { added: [fresh.id], renewed: [old.id] } })
      await server.start()
      await leftAlone()
      expect({ lives: await lives(), volumes: await volumes() }).toEqual(before)
      expect(await server.client.sandboxes.get(old.id)).toMatchObject({
        name: 'kept-name',
        metadata: { team: 'a' },
        env: { CHANGED: '1' },
        status: { state: 'Running' },
        instance: { number: 2 },
      })
      await assertData(server, fresh.id, sum)
      await still()
      await ok('rebuild', '--confirm')
      await removeAll()
    })

    test('a lost state directory is rebuilt: same instances, same starts, same data, and all can be removed', async () => {
      const { server } = rig
      const theirs = `hft-theirs-${installation}`
      if (kind === 'docker') await rawDocker(DOCKER_SOCKET, 'POST', '/volumes/create', { Name: theirs })
      const claim = await server.client.volumes.create({ claimName: 'cache' })
      const a = await make(rig, 'a', {
        env: { GREETING: 'a=b c' },
        volumes: [
          { name: 'cache', mountPath: '/cache', pvc: { claimName: 'cache' } },
          ...(kind === 'docker'
            ? [{ name: 'theirs', mountPath: '/theirs', pvc: { claimName: theirs } }]
            : []),
        ],
      })
      const b = await make(rig, 'b')
      const sums = [await putData(server, a.id), await putData(server, b.id)]
      await server.client.sandboxes.stop(b.id)
      await reach(server, b.id, 'Stopped')
      const before = { lives: await lives(), volumes: await volumes() }
      await server.kill()
      // On `local` the engine itself lives in the state directory; losing that is losing the machine's disk.
      for (const name of readdirSync(server.stateDir))
        if (name !== 'local') rmSync(join(server.stateDir, name), { recursive: true })

      const table = await ok('rebuild', '--dry-run', '--installation', installation)
      expect(table).toContain(a.id)
      expect(readdirSync(server.stateDir).filter((n) => n.endsWith('.db'))).toEqual([])
      const rebuilt = JSON.parse(await ok('rebuild', '--installation', installation, '-o', 'json')) as {
        sandboxes: { id: string; exact: boolean; desired: string }[]
        how: string
      }
      expect(rebuilt.how).toBe('new')
      expect(rebuilt.sandboxes).toEqual([
        // The uid of somebody else's volume is in the hash, and nothing but the lost store knew it.
        expect.objectContaining({ id: a.id, desired: 'running', exact: kind === 'local' }),
        expect.objectContaining({ id: b.id, desired: 'stopped', exact: true }),
      ])
      await server.start()
      await leftAlone()
      expect({ lives: await lives(), volumes: await volumes() }).toEqual(before)
      const now = await server.client.sandboxes.get(a.id)
      expect(now).toMatchObject({
        env: { GREETING: 'a=b c' },
        status: { state: 'Running' },
        image: { uri: rig.world.image },
        entrypoint: WORKLOAD,
      })
      expect(engineId(now)).toBe(engineId(a))
      expect(now.volumes.map((v) => v.uid)).toContain(claim.uid)
      await assertData(server, a.id, sums[0] ?? '')
      await still()

      await ok('rebuild', '--confirm')
      await server.client.sandboxes.start(b.id)
      await reach(server, b.id, 'Running')
      await assertData(server, b.id, sums[1] ?? '')
      expect(Object.keys(await lives())).toEqual(Object.keys(before.lives))
      for (const s of await server.client.sandboxes.list()) await server.client.sandboxes.remove(s.id)
      await until('the sandboxes are gone', 60_000, async () =>
        (await rig.world.instances(installation)).length === 0 ? true : null,
      )
      // A claim is retained: its labels do not say otherwise, as its request did not.
      await until('their own volumes are gone', 60_000, async () =>
        (await volumes()).every((v) => v === claim.physicalName) ? true : null,
      )
      await server.client.volumes.remove(claim.uid)
      await removeAll()
      if (kind === 'docker')
        expect((await rawDocker(DOCKER_SOCKET, 'GET', `/volumes/${theirs}`)).status).toBe(200)
    })
  })
}

suite('local')
if (missing === null) suite('docker')
else test.skip(`docker: ${missing}`, () => undefined)
