/** `node test/campaign/expiry.ts [--engine docker|local]`: about a minute, because a shorter time to live is refused. */
import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import {
  assertData,
  engineFlag,
  engineId,
  gone,
  leaveNothing,
  make,
  perform,
  putData,
  reach,
} from './stage.ts'
import { openRig, type Rig } from './world.ts'

/** The shortest that the API takes, seconds. */
const TIMEOUT_S = 60
/** From an expiry until the sandbox, its instance and its volume are gone, ms. */
const GOES_WITHIN_MS = 15_000

const at = (time: string | null): number => Date.parse(time ?? '')

/** One expires while the server is up, one while it is down, and a renewed one outlives both and the restart. */
export async function expiry(rig: Rig): Promise<void> {
  const { server, world } = rig
  const { installation } = await server.client.info()
  const short = await make(rig, 'short', { timeout: TIMEOUT_S })
  const renewed = await make(rig, 'renewed', { timeout: TIMEOUT_S })
  await delay(2_000)
  const meanwhile = await make(rig, 'meanwhile', { timeout: TIMEOUT_S })
  const sum = await putData(server, renewed.id)
  const until = new Date(Date.now() + 3_600_000).toISOString()
  assert.equal(at((await server.client.sandboxes.renew(renewed.id, until)).expiresAt), at(until))
  await server.kill()
  await server.start()
  assert.equal(
    at((await reach(server, renewed.id, 'Running')).expiresAt),
    at(until),
    'the renewal survives a crash',
  )

  await delay(at(short.expiresAt) - Date.now())
  await gone(server, short.id, GOES_WITHIN_MS)
  if (Date.now() < at(meanwhile.expiresAt))
    assert.equal((await reach(server, meanwhile.id, 'Running')).deletedAt, null)
  await server.kill()
  await delay(at(meanwhile.expiresAt) + 500 - Date.now())
  assert.ok(
    (await world.instances(installation)).some((i) => i.sandbox === meanwhile.id),
    'nobody but the server ends it',
  )
  await server.start()
  await gone(server, meanwhile.id, GOES_WITHIN_MS)

  const still = await reach(server, renewed.id, 'Running')
  assert.equal(engineId(still), engineId(renewed))
  assert.equal(still.instance?.startedAt, renewed.instance?.startedAt, 'the renewed one was not restarted')
  await assertData(server, renewed.id, sum)
  const stone = await server.client.sandboxes.get(short.id, { includeDeleted: true })
  assert.equal(stone.desired.reason, 'expiry')
  await leaveNothing(rig)
}

if (import.meta.main) {
  const rig = await openRig(engineFlag(process.argv))
  await rig.server.start()
  process.exit(await perform('expiry', rig, [['renewed ones stay, expired ones go', expiry]]))
}
