import type { Sandbox, Volume } from '@holdfast/client'
import type { TestServer } from '../support/server.ts'
import { checkHistory } from './soak-check.ts'
import type { SoakHistory, SoakSandbox } from './soak-history.ts'
import { deathsOf, storiesOf, wanted } from './soak-register.ts'
import { createRandom } from './random.ts'
import { request, type SoakCaller } from './soak-requests.ts'
import { until } from './until.ts'
import {
  verifyData,
  verifyEngine,
  verifyIdentities,
  verifyNothingStays,
  verifyRetained,
  verifyStates,
  verifyStillness,
} from './verify.ts'
import { running } from './witness.ts'
import type { World } from './world.ts'

/** From the time at which a sandbox's time is up until it is seen to be wanted gone, ms. */
const EXPIRES_WITHIN_MS = 15_000
/** One that ends so soon is not looked into, because it may go meanwhile, ms. */
const ENDS_SOON_MS = 90_000

/** What may hold of each sandbox once nothing is under way. */
function expectations(history: SoakHistory): (s: SoakSandbox) => ReadonlySet<string> {
  const stories = storiesOf(history.entries)
  const deaths = deathsOf(history.entries)
  return (s) => {
    const now = Date.now()
    const story = stories.get(s.id) ?? { ops: [], faults: [] }
    // The server that still runs can hold a request that nobody waits for any more: it is done by now.
    const settled = [...deaths, now]
    const may = wanted(story, settled, now, now)
    if (wanted(story, settled, now - EXPIRES_WITHIN_MS, now - EXPIRES_WITHIN_MS).mustExpire)
      return new Set(['gone'])
    const states = new Set<string>(may.mayExpire ? ['gone'] : [])
    const keepsRunning = s.policy !== 'no'
    for (const wish of may.wishes) {
      if (wish === 'running') states.add('Running')
      if (wish === 'paused') states.add('Paused')
      if (wish === 'stopped' || wish === 'ended') states.add('Stopped')
      if (wish === 'lost') states.add('Lost')
      if (wish === 'deleted') states.add('gone')
      if ((wish === 'ended' || wish === 'lost') && keepsRunning) states.add('Running')
    }
    return states
  }
}

/** Waits until all holds that was asked for, and checks everything that there is. Leaves a still server. */
export async function stillness(
  server: TestServer,
  world: World,
  installation: string,
  history: SoakHistory,
  untouched: ReadonlySet<string>,
): Promise<void> {
  const expected = expectations(history)
  const ms = await verifyStates(server, history, (p) => expected(p as SoakSandbox))
  history.counts.set(
    'slowest convergence ms',
    Math.max(history.counts.get('slowest convergence ms') ?? 0, Math.round(ms)),
  )
  await wake(server, history)
  await verifyEngine(world, installation, lasting(history))
  await verifyIdentities(server, history, untouched)
  history.count('stillness windows')
  await verifyStillness(server, history)
  const files = await verifyData(server, lasting(history))
  history.counts.set('files compared', (history.counts.get('files compared') ?? 0) + files)
  await verifyVolumes(server, history)
  for (const violation of checkHistory(history.entries)) history.violated(violation)
}

/** Without those that are about to end by themselves. */
function lasting(history: SoakHistory): SoakHistory {
  const soon = Date.now() + ENDS_SOON_MS
  const expiries = new Map<string, number>()
  for (const e of history.entries)
    if (e.kind === 'look')
      for (const s of e.all) if (s.expiresAt !== null) expiries.set(s.id, Date.parse(s.expiresAt))
  const kept = [...history.sandboxes].filter(([id]) => (expiries.get(id) ?? Number.POSITIVE_INFINITY) > soon)
  return { ...history, sandboxes: new Map(kept) }
}

/** Takes over what is wanted now as what was promised, and brings up what is paused, lost, or has no instance. */
async function wake(server: TestServer, history: SoakHistory): Promise<void> {
  const now = new Map((await server.client.sandboxes.list()).map((s) => [s.id, s]))
  const o: SoakCaller = { name: 'stillness', server, history, random: createRandom(history.entries.length) }
  for (const s of history.sandboxes.values()) {
    const seen = now.get(s.id)
    s.desired = seen === undefined ? 'deleted' : (seen.desired.state as SoakSandbox['desired'])
    s.unsure = false
    const action = seen === undefined ? null : wayUp(seen)
    if (action === null) continue
    s.mayStart++
    const { outcome, answer } = await request(o, {
      target: s.id,
      action,
      method: 'POST',
      path: `/sandboxes/${s.id}/${action}`,
      keyed: true,
    })
    if (outcome !== 'ok') {
      // Its time may be up at this moment.
      if (!s.expires)
        history.violated(`${action} of ${s.name} answered ${answer?.status}: ${JSON.stringify(answer?.body)}`)
      continue
    }
    s.desired = 'running'
    await running(server, s.id, 90_000).catch((error: unknown) => {
      if (!s.expires) history.violated(`${s.name} did not come up by ${action}: ${String(error)}`)
    })
  }
}

function wayUp(s: Sandbox): 'recover' | 'start' | 'resume' | null {
  if (s.status.state === 'Lost') return s.desired.state === 'running' ? 'recover' : 'start'
  if (s.status.state === 'Paused') return 'resume'
  return s.status.state === 'Stopped' && s.instance === null ? 'start' : null
}

/** Only what was purged, or went with its sandbox, is gone; all else is there. */
async function verifyVolumes(server: TestServer, history: SoakHistory): Promise<void> {
  const purged = new Set(
    history.entries.flatMap((e) =>
      e.kind === 'op' && e.action === 'purge' && (e.outcome !== 'refused' || e.late) ? [e.target] : [],
    ),
  )
  const made = history.entries.flatMap((e) =>
    e.kind === 'op' && e.action === 'volume create' && e.outcome === 'ok' ? [e.target] : [],
  )
  const all: Volume[] = await server.client.volumes.list({ includeRemoved: true })
  const claims = new Set(all.filter((v) => v.state === 'ready').map((v) => `volume ${v.claimName}`))
  for (const target of made)
    if (!purged.has(target) && !claims.has(target))
      history.violated(`${target} is lost: it was made, and never purged`)
  const sandboxes = new Map((await server.client.sandboxes.list()).map((s) => [s.id, s]))
  for (const v of all) {
    const gone = v.state === 'removed' || v.state === 'removing'
    const ownerGone = v.owner !== null && !sandboxes.has(v.owner)
    if (gone && !purged.has(`volume ${v.claimName}`) && !(v.retention === 'delete' && ownerGone))
      history.violated(
        `the volume ${v.physicalName} (${v.retention}, of ${v.owner}) is ${v.state}, and nobody agreed`,
      )
    if (v.state === 'lost') history.violated(`the volume ${v.physicalName} is lost: ${v.message}`)
  }
}

/** Deletes all, and looks for what stayed. */
export async function finish(
  server: TestServer,
  world: World,
  installation: string,
  history: SoakHistory,
): Promise<void> {
  await until('the server answers', 30_000, async () => server.client.info())
  const claims = await verifyRetained(server, world, lasting(history))
  history.counts.set('claims re-mounted', claims)
  await verifyNothingStays(server, world, installation, history)
}
