import { describe, expect, test } from 'vitest'
import type { Step } from '../../src/model/records.ts'
import { memoryStore } from '../../src/store/sqlite/testing.ts'
import { mountOf, realClock, realIds, sandboxRecord, volumeRecord } from './store-support/fixtures.ts'

const open = (): ReturnType<typeof memoryStore> => memoryStore(realClock, realIds)
const step: Step = { kind: 'create-volume', uid: 'v1', name: 'data-v1' }

describe('sandboxes', () => {
  test('a record comes back as it was written, and fields of a later version stay in it', async () => {
    const store = open()
    const record = { ...sandboxRecord({ id: 'a1', metadata: { team: 'x' } }), later: { kept: true } }
    await store.write(true, (tx) => tx.insertSandbox(record))
    expect(await store.read((tx) => tx.sandbox('a1'))).toEqual(record)
    const read = await store.read((tx) => tx.sandbox('a1'))
    expect(await store.write(true, (tx) => tx.updateSandbox(read ?? record))).toBe(true)
    expect(await store.read((tx) => tx.sandbox('a1'))).toEqual({ ...record, version: 2 })
    expect(await store.read((tx) => tx.sandbox('none'))).toBeNull()
  })

  test('of two writers that read the same version, one wins', async () => {
    const store = open()
    const record = sandboxRecord({ id: 'a1' })
    await store.write(true, (tx) => tx.insertSandbox(record))
    const results = await Promise.all([
      store.write(true, (tx) => tx.updateSandbox({ ...record, desired: 'stopped' })),
      store.write(true, (tx) => tx.updateSandbox({ ...record, desired: 'deleted' })),
    ])
    expect(results).toEqual([true, false])
    expect((await store.read((tx) => tx.sandbox('a1')))?.desired).toBe('stopped')
  })

  test('a name belongs to one live sandbox, the loser is told whose it is, and a finished delete frees it', async () => {
    const store = open()
    const first = sandboxRecord({ id: 'a1', name: 'web' })
    const both = await Promise.allSettled([
      store.write(true, (tx) => tx.insertSandbox(first)),
      store.write(true, (tx) => tx.insertSandbox(sandboxRecord({ id: 'a2', name: 'web' }))),
    ])
    expect(both[0].status).toBe('fulfilled')
    expect(both[1]).toMatchObject({
      reason: { code: 'SANDBOX::NAME_TAKEN', details: { name: 'web', id: 'a1' } },
    })
    expect(await store.read((tx) => tx.sandbox('a2'))).toBeNull()
    await store.write(true, (tx) => tx.updateSandbox({ ...first, deletedAt: 5 }))
    await store.write(true, (tx) => tx.insertSandbox(sandboxRecord({ id: 'a2', name: 'web' })))
    expect((await store.read((tx) => tx.sandboxByName('web')))?.id).toBe('a2')
  })

  test('lists are newest first, filtered, paged, with totals', async () => {
    const store = open()
    await store.write(true, async (tx) => {
      for (let i = 0; i < 5; i++) {
        await tx.insertSandbox(
          sandboxRecord({
            id: `a${i}`,
            createdAt: i < 3 ? 10 : 20,
            metadata: { n: String(i % 2), all: 'yes' },
          }),
        )
      }
      await tx.insertSandbox(sandboxRecord({ id: 'gone', deletedAt: 9 }))
    })
    const ids = async (...args: Parameters<Parameters<Parameters<typeof store.read>[0]>[0]['sandboxes']>) => {
      const page = await store.read((tx) => tx.sandboxes(...args))
      return [page.items.map((r) => r.id), page.total]
    }
    expect(await ids({})).toEqual([['a3', 'a4', 'a0', 'a1', 'a2'], 5])
    expect(await ids({}, { offset: 1, limit: 2 })).toEqual([['a4', 'a0'], 5])
    expect(await ids({ metadata: { n: '1', all: 'yes' } })).toEqual([['a3', 'a1'], 2])
    expect(await ids({ phases: ['pending'] }, { offset: 0, limit: 1 })).toEqual([['a3'], 5])
    expect(await ids({ phases: ['Running'] })).toEqual([[], 0])
    expect(await ids({ engine: 'docker' })).toEqual([[], 0])
    expect((await ids({ includeDeleted: true }))[1]).toBe(6)
  })

  test('prefixes match only live ids that start so', async () => {
    const store = open()
    await store.write(true, async (tx) => {
      for (const id of ['abc1', 'abc2', 'abd1', 'b']) await tx.insertSandbox(sandboxRecord({ id }))
      await tx.insertSandbox(sandboxRecord({ id: 'abc3', deletedAt: 1 }))
    })
    const ids = async (prefix: string, limit: number) =>
      (await store.read((tx) => tx.sandboxesByPrefix(prefix, limit))).map((r) => r.id)
    expect(await ids('abc', 10)).toEqual(['abc1', 'abc2'])
    expect(await ids('ab', 2)).toEqual(['abc1', 'abc2'])
    expect(await ids('%', 10)).toEqual([])
  })

  test('expiry finds what is due and not already going', async () => {
    const store = open()
    await store.write(true, async (tx) => {
      await tx.insertSandbox(sandboxRecord({ id: 'due', expiresAt: 100 }))
      await tx.insertSandbox(sandboxRecord({ id: 'later', expiresAt: 101 }))
      await tx.insertSandbox(sandboxRecord({ id: 'never' }))
      await tx.insertSandbox(sandboxRecord({ id: 'going', expiresAt: 1, desired: 'deleted' }))
    })
    expect((await store.read((tx) => tx.sandboxesExpiredAt(100))).map((r) => r.id)).toEqual(['due'])
  })

  test('holders follow spec and image mounts until the delete is finished', async () => {
    const store = open()
    const base = sandboxRecord({ id: 'a1' })
    const record = { ...base, spec: { ...base.spec, mounts: [mountOf('v1', '/x'), mountOf('v1', '/y')] } }
    await store.write(true, (tx) => tx.insertSandbox({ ...record, imageMounts: [mountOf('v2', '/z')] }))
    const holders = async (uid: string) => (await store.read((tx) => tx.holdersOf(uid))).map((r) => r.id)
    expect(await holders('v1')).toEqual(['a1'])
    expect(await holders('v2')).toEqual(['a1'])
    await store.write(true, (tx) => tx.updateSandbox({ ...record, desired: 'deleted' }))
    expect(await holders('v1')).toEqual(['a1'])
    expect(await holders('v2')).toEqual([])
    await store.write(true, (tx) => tx.updateSandbox({ ...record, version: 2, deletedAt: 7 }))
    expect(await holders('v1')).toEqual([])
  })
})

describe('volumes', () => {
  test('a claim has one live volume per engine; workspaces share a claim name', async () => {
    const store = open()
    const data = volumeRecord({ uid: 'v1', claim: 'data', physicalName: 'data-v1' })
    await store.write(true, (tx) => tx.insertVolume(data))
    const second = volumeRecord({ uid: 'v2', claim: 'data', physicalName: 'data-v2' })
    await expect(store.write(true, (tx) => tx.insertVolume(second))).rejects.toMatchObject({
      code: 'VOLUME::CLAIM_TAKEN',
      details: { claim: 'data' },
    })
    await store.write(true, async (tx) => {
      await tx.insertVolume({ ...second, engine: 'other' })
      for (const uid of ['w1', 'w2']) {
        await tx.insertVolume(
          volumeRecord({
            uid,
            kind: 'workspace',
            claim: 'workspace',
            physicalName: `workspace-${uid}`,
            owner: 'a1',
          }),
        )
      }
    })
    expect((await store.read((tx) => tx.volumeByClaim('simulated', 'data')))?.uid).toBe('v1')
    expect(await store.read((tx) => tx.volumeByClaim('simulated', 'workspace'))).toBeNull()
    expect((await store.read((tx) => tx.volumesOwnedBy('a1'))).map((v) => v.uid)).toEqual(['w1', 'w2'])
    expect(
      await store.write(true, (tx) => tx.updateVolume({ ...data, state: 'removed', removedAt: 3 })),
    ).toBe(true)
    await store.write(true, (tx) => tx.insertVolume({ ...second, uid: 'v3', physicalName: 'data-v3' }))
    expect((await store.read((tx) => tx.volumeByClaim('simulated', 'data')))?.uid).toBe('v3')
    expect((await store.read((tx) => tx.volumeByPhysicalName('simulated', 'data-v1')))?.state).toBe('removed')
    const page = await store.read((tx) => tx.volumes({ engine: 'simulated' }, { offset: 0, limit: 2 }))
    expect([page.items.length, page.total]).toEqual([2, 3])
    expect((await store.read((tx) => tx.volumes({ includeRemoved: true }))).total).toBe(5)
  })
})

describe('journal, events, remains', () => {
  test('a step keeps id and names through retries, and its outcome is recorded once', async () => {
    const store = open()
    const row = await store.write(true, (tx) =>
      tx.openStep({ key: 'volume/v1', engine: 'simulated', step, generation: 1, at: 5, deadlineAt: 50 }),
    )
    expect(row).toMatchObject({ attempts: 1, state: 'open', epoch: store.epoch, step })
    const next = store.reopen()
    const again = await next.write(true, (tx) => tx.retryStep(row.id, 60, 90))
    expect(again).toMatchObject({ id: row.id, attempts: 2, epoch: next.epoch, deadlineAt: 90, step })
    await next.write(true, (tx) => tx.closeStep(row.id, 'done', 70, 'made'))
    expect(await next.read((tx) => tx.openSteps('volume/v1'))).toEqual([])
    await expect(next.write(true, (tx) => tx.closeStep(row.id, 'failed', 71, 'x'))).rejects.toMatchObject({
      code: 'STORE_FAILED',
    })
    expect(await next.read((tx) => tx.journal('volume/v1', 5))).toMatchObject([
      { state: 'done', outcome: 'made' },
    ])
  })

  test('event numbers grow for ever, also past a prune and a rollback', async () => {
    const store = open()
    const draft = { subject: 'sandbox', id: 'a1', type: 'Normal', reason: 'Made', message: 'm' } as const
    expect(await store.read((tx) => tx.lastEventSeq())).toBe(0)
    for (let i = 1; i <= 3; i++)
      expect((await store.write(false, (tx) => tx.appendEvent(draft, i))).seq).toBe(i)
    const undone = store.write(false, async (tx) => {
      await tx.appendEvent(draft, 4)
      throw new Error('undo')
    })
    await expect(undone).rejects.toThrow('undo')
    const before = { events: 100, journal: 0, idempotency: 0, sandboxes: 0 }
    expect(await store.write(false, (tx) => tx.prune(before))).toBe(3)
    expect(await store.read((tx) => tx.lastEventSeq())).toBe(3)
    expect((await store.write(false, (tx) => tx.appendEvent({ ...draft, id: 'b' }, 5))).seq).toBe(4)
    expect((await store.read((tx) => tx.events({ afterSeq: 3, limit: 9 }))).map((e) => e.seq)).toEqual([4])
    expect(await store.read((tx) => tx.events({ subject: 'sandbox', id: 'a1', limit: 9 }))).toEqual([])
  })

  test('prune leaves open steps, live rows and tombstones, and a pruned sandbox leaves one', async () => {
    const store = open()
    await store.write(true, async (tx) => {
      await tx.insertSandbox(sandboxRecord({ id: 'old', deletedAt: 10 }))
      await tx.insertSandbox(sandboxRecord({ id: 'live' }))
      await tx.openStep({ key: 'k', engine: 'e', step, generation: 1, at: 1, deadlineAt: 2 })
      const done = await tx.openStep({ key: 'k', engine: 'e', step, generation: 1, at: 1, deadlineAt: 2 })
      await tx.closeStep(done.id, 'done', 3, '')
      await tx.putIdempotency({ key: 'i', requestHash: 'h', status: 202, body: '{}', at: 4 })
      await tx.insertVolume(volumeRecord({ uid: 'v1', state: 'removed', removedAt: 5 }))
      await tx.insertVolume(volumeRecord({ uid: 'v2', state: 'removed', removedAt: 5 }))
      await tx.putTombstone({ uid: 'v2', kind: 'volume', name: 'claim-v2', engine: 'simulated', at: 5 })
    })
    const all = { events: 100, journal: 100, idempotency: 100, sandboxes: 100 }
    expect(await store.write(true, (tx) => tx.prune(all))).toBe(4)
    await store.read(async (tx) => {
      expect(await tx.sandbox('old')).toBeNull()
      expect(await tx.sandbox('live')).not.toBeNull()
      expect(await tx.tombstone('old')).toMatchObject({ kind: 'sandbox', at: 10 })
      expect(await tx.openSteps()).toHaveLength(1)
      expect(await tx.idempotency('i')).toBeNull()
      expect(await tx.volume('v1')).not.toBeNull()
      expect(await tx.volume('v2')).toBeNull()
      expect(await tx.tombstoneByName('simulated', 'volume', 'claim-v2')).toMatchObject({ uid: 'v2' })
    })
  })

  test('a quarantined object keeps the time it was first seen until another one has its name', async () => {
    const store = open()
    const row = {
      engine: 'e',
      kind: 'volume',
      name: 'n',
      engineId: 'x',
      firstSeenAt: 5,
      lastSeenAt: 5,
      detail: '',
    } as const
    const put = (over: Partial<typeof row> | Record<string, unknown>): Promise<void> =>
      store.write(false, (tx) => tx.putQuarantine({ ...row, ...over }))
    await put({})
    await put({ firstSeenAt: 9, lastSeenAt: 9 })
    expect(await store.read((tx) => tx.quarantine('e'))).toMatchObject([{ firstSeenAt: 5, lastSeenAt: 9 }])
    await put({ engineId: 'y', firstSeenAt: 12, lastSeenAt: 12 })
    expect(await store.read((tx) => tx.quarantine())).toMatchObject([{ firstSeenAt: 12 }])
    await store.write(false, (tx) => tx.dropQuarantine('e', 'volume', 'n'))
    expect(await store.read((tx) => tx.quarantine())).toEqual([])
  })

  test('answers, keys and meta are kept', async () => {
    const store = open()
    await store.write(true, async (tx) => {
      await tx.putIdempotency({ key: 'i', requestHash: 'h', status: 202, body: '{}', at: 4 })
      await tx.putApiKey({ id: 'k', name: 'default', hash: 'x', createdAt: 1 })
      await tx.setMeta('a', '1')
      await tx.setMeta('a', '2')
    })
    const next = store.reopen()
    await next.read(async (tx) => {
      expect(await tx.idempotency('i')).toEqual({
        key: 'i',
        requestHash: 'h',
        status: 202,
        body: '{}',
        at: 4,
      })
      expect(await tx.apiKeys()).toEqual([{ id: 'k', name: 'default', hash: 'x', createdAt: 1 }])
      expect(await tx.meta('a')).toBe('2')
    })
    expect(next.installation).toBe(store.installation)
  })
})

describe('transactions', () => {
  test('a crash undoes what was open, and fences everything of the old process', async () => {
    const store = open()
    await store.write(true, (tx) => tx.insertSandbox(sandboxRecord({ id: 'kept' })))
    let go: () => void = () => undefined
    const gate = new Promise<void>((resolve) => {
      go = resolve
    })
    const running = store.write(true, async (tx) => {
      await tx.insertSandbox(sandboxRecord({ id: 'open' }))
      await gate
      await tx.insertSandbox(sandboxRecord({ id: 'late' }))
    })
    const waiting = store.write(true, (tx) => tx.insertSandbox(sandboxRecord({ id: 'waiting' })))
    await new Promise((resolve) => setImmediate(resolve))
    const next = store.reopen()
    expect(next.epoch).toBe(store.epoch + 1)
    go()
    const fenced = { code: 'FENCED', details: { mine: store.epoch, current: next.epoch } }
    await expect(running).rejects.toMatchObject(fenced)
    await expect(waiting).rejects.toMatchObject(fenced)
    await expect(store.read((tx) => tx.sandboxes({}))).rejects.toMatchObject(fenced)
    expect(() => store.assertFence()).toThrow('newer control plane')
    next.assertFence()
    expect((await next.read((tx) => tx.sandboxes({}))).items.map((r) => r.id)).toEqual(['kept'])
  })

  test('a query that outlives its transaction is refused and writes nothing', async () => {
    const store = open()
    const leaked = await store.write(true, async (tx) => ({ tx }))
    await expect(leaked.tx.setMeta('late', '1')).rejects.toMatchObject({ code: 'STORE_FAILED' })
    expect(await store.read((tx) => tx.meta('late'))).toBeNull()
  })

  test('a transaction that waits for something foreign is ended, and the store goes on', async () => {
    const due: (() => void)[] = []
    const clock = { ...realClock, after: (_ms: number, fn: () => void) => (due.push(fn), () => undefined) }
    const store = memoryStore(clock, realIds)
    const nested = store.write(true, async (tx) => {
      await tx.setMeta('a', '1')
      await store.read((r) => r.meta('a'))
    })
    await new Promise((resolve) => setImmediate(resolve))
    due[0]?.()
    await expect(nested).rejects.toMatchObject({ code: 'STORE_FAILED' })
    expect(await store.read((tx) => tx.meta('a'))).toBeNull()
  })

  test('writes that were queued before close are done, later ones refused', async () => {
    const store = open()
    const queued = store.write(true, (tx) => tx.setMeta('a', '1'))
    const closing = store.close()
    await expect(store.write(true, (tx) => tx.setMeta('b', '1'))).rejects.toMatchObject({
      code: 'STORE_FAILED',
    })
    await queued
    await closing
    expect(await store.reopen().read((tx) => tx.meta('a'))).toBe('1')
  })
})

describe('damaged rows', () => {
  test('one is left out of lists, named when asked for, and reported', async () => {
    const store = open()
    const mounted = sandboxRecord({ id: 'bad1' })
    await store.write(true, async (tx) => {
      await tx.insertSandbox({
        ...mounted,
        name: 'bad',
        spec: { ...mounted.spec, mounts: [mountOf('v1', '/d')] },
      })
      await tx.insertSandbox(sandboxRecord({ id: 'bad2' }))
      await tx.insertSandbox(sandboxRecord({ id: 'good' }))
      await tx.insertVolume(volumeRecord({ uid: 'v1' }))
      await tx.openStep({ key: 'volume/v1', engine: 'e', step, generation: 1, at: 1, deadlineAt: 2 })
      await tx.openStep({ key: 'volume/v2', engine: 'e', step, generation: 1, at: 1, deadlineAt: 2 })
    })
    store.database.exec(`
      UPDATE sandboxes SET doc = '{"id":"bad1"' WHERE id = 'bad1';
      UPDATE sandboxes SET doc = json_set(doc, '$.desired', 'dancing') WHERE id = 'bad2';
      UPDATE volumes SET doc = json_set(doc, '$.uid', 'v9') WHERE uid = 'v1';
      UPDATE journal SET step = '{}' WHERE key = 'volume/v1';
    `)
    await store.read(async (tx) => {
      expect((await tx.sandboxes({})).items.map((r) => r.id)).toEqual(['good'])
      expect((await tx.volumes({})).items).toEqual([])
      expect((await tx.openSteps()).map((r) => r.key)).toEqual(['volume/v2'])
      expect((await tx.corruptRows()).map((r) => `${r.table}/${r.id}`)).toEqual([
        'sandboxes/bad1',
        'sandboxes/bad2',
        'volumes/v1',
        'journal/1',
      ])
    })
    // What decides something does not take an unreadable row for an absent one.
    await expect(store.read((tx) => tx.sandbox('bad1'))).rejects.toThrow('sandboxes/bad1')
    await expect(store.read((tx) => tx.sandboxByName('bad'))).rejects.toThrow('sandboxes/bad1')
    await expect(store.read((tx) => tx.sandboxesByPrefix('bad', 9))).rejects.toThrow('sandboxes/bad')
    await expect(store.read((tx) => tx.holdersOf('v1'))).rejects.toThrow('sandboxes/bad1')
    await expect(store.read((tx) => tx.volume('v1'))).rejects.toThrow('volumes/v1')
    await expect(store.read((tx) => tx.openSteps('volume/v1'))).rejects.toThrow('journal/1')
  })

  test('a record that could not be read back is not written', async () => {
    const store = open()
    const bad = sandboxRecord({ id: 'a1', stopGraceMs: Number.NaN })
    await expect(store.write(true, (tx) => tx.insertSandbox(bad))).rejects.toThrow('stopGraceMs')
    expect(await store.read((tx) => tx.sandbox('a1'))).toBeNull()
  })
})
