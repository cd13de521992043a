import { afterEach, describe, expect, it } from 'vitest'
import { createControlPlane, type ControlPlane } from '../support/control-plane.ts'
import { sweepKey } from '../../src/model/keys.ts'
import { BOX, startServer, type Json, type TestServer } from './api-support/server.ts'

const cleanups: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const clean of cleanups.splice(0)) await clean()
})

async function plane(): Promise<ControlPlane> {
  const cp = createControlPlane()
  cleanups.push(() => cp.stop())
  await cp.start()
  return cp
}

const running = (cp: ControlPlane): string[] =>
  [...cp.world.containers.values()]
    .filter((c) => c.state === 'running')
    .map((c) => `${c.name} ${c.id} ${c.startedAt}`)
    .toSorted()

const DAMAGE: Readonly<Record<string, (id: string, uid: string) => string>> = {
  'its own row': (id) => `UPDATE sandboxes SET doc = '{"id":' WHERE id = '${id}'`,
  'a word that no version knows': (id) =>
    `UPDATE sandboxes SET doc = json_set(doc, '$.desired', 'dancing') WHERE id = '${id}'`,
  "its volume's row": (_id, uid) => `UPDATE volumes SET doc = 'x' WHERE uid = '${uid}'`,
  'an open step of it': (id) =>
    `INSERT INTO journal (key, engine, step, generation, epoch, state, attempts, created_at, tried_at, deadline_at)
     VALUES ('sandbox/${id}', 'sim', '{}', 1, 1, 'open', 1, 1, 1, 1)`,
  'an open step of its volume': (_id, uid) =>
    `INSERT INTO journal (key, engine, step, generation, epoch, state, attempts, created_at, tried_at, deadline_at)
     VALUES ('volume/${uid}', 'sim', '{}', 1, 1, 'open', 1, 1, 1, 1)`,
  'an open step of the sweep': () =>
    `INSERT INTO journal (key, engine, step, generation, epoch, state, attempts, created_at, tried_at, deadline_at)
     VALUES ('sweep/sim', 'sim', '{}', 1, 1, 'open', 1, 1, 1, 1)`,
}

describe.each(Object.entries(DAMAGE))('damage to %s', (name_, damage) => {
  it('leaves the sandbox and its data as they are, and others live on, over a crash and an expiry', async () => {
    const cp = await plane()
    // Whoever cannot read a row cannot know its expiry either.
    const own = name_ === 'its own row' || name_ === 'a word that no version knows'
    const expiresAt = own ? cp.clock.now() + 300_000 : null
    const id = await cp.add({ restartPolicy: { kind: 'always' }, expiresAt })
    const other = await cp.add()
    const short = await cp.add({ expiresAt: cp.clock.now() + 600_000 })
    for (const s of [id, other, short]) await cp.reaches(s, 'Running')
    const uid = (await cp.volumes()).find((v) => v.owner === id)?.uid ?? ''
    const name = `workspace-${uid}`
    cp.world.writeVolume(name, '/work', 'mine')
    const before = running(cp)
    cp.store.database.exec(damage(id, uid))
    cp.crash()
    await cp.start()
    await cp.clock.runUntil('recovered', () => cp.reconciler.recovered, 60_000)
    expect(running(cp)).toEqual(before)

    // A remnant of another sandbox is still swept, so one damaged row does not end the sweep.
    const container = cp.world.find(`hf-${short}-1`)
    await cp.clock.advance(700_000)
    expect(cp.world.find(`hf-${short}-1`)).toBeNull()
    if (container !== null) cp.world.containers.set(container.id, container)
    await cp.converge()
    expect(cp.world.find(`hf-${short}-1`)).toBeNull()

    await cp.want(other, 'stopped')
    await cp.reaches(other, 'Stopped')
    expect(cp.world.find(`hf-${id}-1`)?.state).toBe('running')
    expect(cp.world.volumeContent(name)).toMatchObject({ '/work': 'mine' })
    expect(await cp.store.read((tx) => tx.corruptRows())).toHaveLength(1)
    expect(cp.fatals).toEqual([])
    cp.reconciler.kick(sweepKey('sim'))
    await cp.converge()
    const effects = cp.world.mutations()
    await cp.converge()
    expect(cp.world.mutations()).toBe(effects)
  })
})

describe('the API', () => {
  let server: TestServer
  const get = async (path: string): Promise<{ status: number; body: Json }> => {
    const { status, body } = await server.call('GET', `/v1${path}`)
    return { status, body }
  }
  async function start(): Promise<{ bad: string; good: string; uid: string }> {
    server = await startServer({ reconcile: true })
    cleanups.push(() => server.close())
    const made: string[] = []
    for (const name of ['bad', 'good']) {
      const { body } = await server.call('POST', '/v1/sandboxes', { ...BOX, name, workspace: true })
      await server.phase(body.id, 'Running')
      made.push(body.id)
    }
    const [bad = '', good = ''] = made
    const volume = (await server.store.read((tx) => tx.volumesOwnedBy(bad)))[0]
    return { bad, good, uid: volume?.uid ?? '' }
  }

  it("names a sandbox's damaged row, says what it means, and goes on with the others", async () => {
    const { bad, good, uid } = await start()
    server.store.database.exec(`UPDATE sandboxes SET doc = 'x' WHERE id = '${bad}'`)
    const answer = await get(`/sandboxes/${bad}`)
    expect(answer).toMatchObject({ status: 500, body: { code: 'ROW_UNREADABLE' } })
    expect(answer.body.message).toContain(`sandboxes/${bad}`)
    expect(answer.body.message).toContain('left as it is')
    expect(answer.body.suggestion).toContain('holdfast doctor')
    expect((await server.call('DELETE', `/v1/sandboxes/${bad}`)).status).toBe(500)
    expect((await get(`/sandboxes/${good}`)).status).toBe(200)
    expect((await get('/sandboxes')).body.items.map((s: { id: string }) => s.id)).toEqual([good])
    // Whoever mounts it is known by the index, so that nobody thinks it free.
    const volumes = await get('/volumes')
    expect(volumes.status).toBe(200)
    const row = volumes.body.items.find((v: { uid: string }) => v.uid === uid)
    expect(row.mountedBy).toEqual([bad])
    expect((await get(`/volumes/${uid}`)).body.mountedBy).toEqual([bad])
    expect((await server.call('DELETE', `/v1/volumes/${uid}`)).status).toBe(500)
    expect((await get('/recovery')).body.unreadable).toMatchObject([{ table: 'sandboxes', id: bad }])
    expect((await get('/audit')).body.findings).toContainEqual(
      expect.objectContaining({ kind: 'corrupt-row', name: `sandboxes/${bad}` }),
    )
  })

  it('a damaged volume row hides only itself', async () => {
    const { bad, good, uid } = await start()
    server.store.database.exec(`UPDATE volumes SET doc = 'x' WHERE uid = '${uid}'`)
    expect((await get(`/volumes/${uid}`)).body).toMatchObject({ code: 'ROW_UNREADABLE' })
    expect((await get('/sandboxes')).body.items).toHaveLength(2)
    expect((await get(`/sandboxes/${bad}`)).body.volumes).toMatchObject([{ uid, mountPath: '/sandbox' }])
    expect((await get(`/sandboxes/${bad}/explain`)).status).toBe(200)
    expect((await get(`/sandboxes/${good}`)).status).toBe(200)
    expect((await get('/volumes')).body.items).toHaveLength(1)
    expect((await get('/recovery')).body.unreadable).toMatchObject([{ table: 'volumes', id: uid }])
  })
})
