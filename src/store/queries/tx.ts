import type { Session } from '../schema.ts'
import type { WriteTx } from '../store.ts'
import * as events from './events.ts'
import * as journal from './journal.ts'
import * as remains from './remains.ts'
import * as sandboxes from './sandboxes.ts'
import * as upkeep from './upkeep.ts'
import * as volumes from './volumes.ts'

/** All reads and writes of one transaction, over any database that can be a session. */
export function txOver(s: Session): WriteTx {
  return {
    sandbox: (id) => sandboxes.sandbox(s, id),
    sandboxByName: (name) => sandboxes.sandboxByName(s, name),
    sandboxesByPrefix: (prefix, limit) => sandboxes.sandboxesByPrefix(s, prefix, limit),
    sandboxes: (filter, page) => sandboxes.sandboxes(s, filter, page),
    sandboxesExpiredAt: (now) => sandboxes.sandboxesExpiredAt(s, now),
    volume: (uid) => volumes.volume(s, uid),
    volumeByClaim: (engine, claim) => volumes.volumeByClaim(s, engine, claim),
    volumeByPhysicalName: (engine, name) => volumes.volumeByPhysicalName(s, engine, name),
    volumesOwnedBy: (sandbox) => volumes.volumesOwnedBy(s, sandbox),
    volumes: (filter, page) => volumes.volumes(s, filter, page),
    holderIds: (volume) => sandboxes.holderIds(s, volume),
    holdersOf: (volume) => sandboxes.holdersOf(s, volume),
    openSteps: (key) => journal.openSteps(s, key),
    journal: (key, limit) => journal.journal(s, key, limit),
    events: (filter) => events.events(s, filter),
    lastEventSeq: () => events.lastEventSeq(s),
    tombstone: (uid) => remains.tombstone(s, uid),
    tombstoneByName: (engine, kind, name) => remains.tombstoneByName(s, engine, kind, name),
    quarantine: (engine) => remains.quarantine(s, engine),
    idempotency: (key) => upkeep.idempotency(s, key),
    apiKeys: () => upkeep.apiKeys(s),
    meta: (key) => upkeep.meta(s, key),
    hold: () => upkeep.hold(s),
    corruptRows: () => upkeep.corruptRows(s),
    insertSandbox: (record) => sandboxes.insertSandbox(s, record),
    updateSandbox: (record) => sandboxes.updateSandbox(s, record),
    insertVolume: (record) => volumes.insertVolume(s, record),
    updateVolume: (record) => volumes.updateVolume(s, record),
    openStep: (row) => journal.openStep(s, row),
    retryStep: (id, at, deadlineAt) => journal.retryStep(s, id, at, deadlineAt),
    closeStep: (id, state, at, outcome) => journal.closeStep(s, id, state, at, outcome),
    appendEvent: (draft, at) => events.appendEvent(s, draft, at),
    putTombstone: (t) => remains.putTombstone(s, t),
    putQuarantine: (row) => remains.putQuarantine(s, row),
    dropQuarantine: (engine, kind, name) => remains.dropQuarantine(s, engine, kind, name),
    putIdempotency: (row) => upkeep.putIdempotency(s, row),
    putApiKey: (row) => upkeep.putApiKey(s, row),
    removeApiKey: (id) => upkeep.removeApiKey(s, id),
    setMeta: (key, value) => upkeep.setMeta(s, key, value),
    prune: (before) => upkeep.prune(s, before),
  }
}
