import { isExactly, LABEL } from '../../../src/model/labels.ts'
import type { Phase, SandboxRecord } from '../../../src/model/records.ts'
import { atRest, leftovers } from '../play.ts'
import { up } from './nature.ts'
import { createSubject, type Model, note, type Real, type Subject } from './state.ts'
import { OK } from '../../../src/engines/simulated/faults.ts'

/**
 * All comes right within this once faults end, ms of virtual time: the latest effect and the doubt about it, and the
 * longest backoff or the breaker's next try, whichever is longer.
 */
const COME_RIGHT_MS = 720_000
/** More than ten full looks take, in which nothing may change, ms. */
const STILL_MS = 400_000
/** As many sandboxes as can expire one after the other. */
const MOST_WAITS = 5
/** A sandbox whose time is up is gone within this, ms. */
const EXPIRED_MS = 150_000

/** Faults end; then everything has to come right, be still, and be what was acknowledged last. */
export async function end(model: Model, real: Real): Promise<readonly string[]> {
  const { plane } = real
  plane.counting = false
  plane.fault = () => OK
  plane.event = () => 'deliver'
  // A zombie ends with its daemon, and with nothing else.
  if ([...plane.world.containers.values()].some((c) => c.zombie)) plane.behind.killDaemon()
  up(model, real, false)
  const problems = await comeRight(model, real)
  if (problems.length === 0 && removeCauses(real)) problems.push(...(await comeRight(model, real)))
  plane.crashNow()
  return [...plane.monitor.violations, ...problems]
}

async function comeRight(model: Model, real: Real): Promise<string[]> {
  const { plane } = real
  await plane.pass(COME_RIGHT_MS)
  // An expiry is no unrest: whichever comes while all has to be still is waited for.
  for (let waits = 0; waits < MOST_WAITS; waits++) {
    const now = plane.clock.now()
    const soon = [...plane.ledger.sandboxes.values()]
      .filter((s) => s.deletedAt === null && s.expiresAt !== null && s.expiresAt < now + STILL_MS)
      .map((s) => s.expiresAt ?? now)
    if (soon.length === 0) break
    await plane.pass(Math.max(0, ...soon.map((at) => at - now)) + EXPIRED_MS)
  }
  note(model, real)
  const problems = [...(await atRest(plane)), ...leftovers(plane), ...check(model, real)]
  note(model, real)
  return problems
}

/** What a person has to put right; true when there was anything. */
function removeCauses({ plane, squatters }: Real): boolean {
  const there = plane.world.images.has('img') || plane.world.registry.has('img')
  const any = squatters.size > 0 || !there
  if (!there) plane.world.addImage('img', IMAGE, 'registry')
  for (const name of squatters) {
    plane.monitor.release(name)
    plane.behind.remove(name)
  }
  squatters.clear()
  return any
}

export const IMAGE = { files: { '/sandbox/seed.txt': 'seeded' } }

function check(model: Model, real: Real): string[] {
  const { ledger } = real.plane
  const problems: string[] = []
  const unknown = [...ledger.sandboxes.values()].filter((s) => model.subjects.every((m) => m.id !== s.id))
  if (unknown.length > model.maybeCreated)
    problems.push(`${unknown.length} sandboxes that nobody knows, of ${model.maybeCreated} unanswered`)
  const adopted = unknown.map((s) => ({
    ...createSubject(s.id, s.restartPolicy.kind === 'always', 'first', s.expiresAt),
    killed: true,
    removed: true,
    shaken: true,
  }))
  for (const subject of [...model.subjects, ...adopted]) {
    const record = ledger.sandboxes.get(subject.id)
    if (record === undefined) problems.push(`${subject.id} was acknowledged, and is not there`)
    else problems.push(...checkOne(model, real, subject, record))
  }
  problems.push(...checkVolumes(model, real))
  return problems
}

function checkOne(model: Model, real: Real, subject: Subject, record: SandboxRecord): string[] {
  const problems: string[] = []
  const { phase, message } = record.status
  const told = `${subject.id}, of which ${[...subject.wishes].join(' or ')} is wanted,`
  const allowed = phasesFor(model, real, subject, record)
  if (!allowed.includes(phase))
    problems.push(
      `${told} should be ${allowed.join(' or ')}, and is ${phase} (${record.status.reason}: ${message}; desired ${record.desired} because of ${record.desiredReason})`,
    )
  const settled = phase === 'Running' || phase === 'Stopped' || phase === 'Terminated'
  if (settled && record.observedGeneration !== record.generation)
    problems.push(`${told} shows generation ${record.observedGeneration} of ${record.generation}`)
  if (phase !== 'Terminated' && !subject.env.has(record.spec.env['V'] ?? ''))
    problems.push(`${told} has V=${record.spec.env['V']}, and ${[...subject.env].join(' or ')} was asked for`)
  if (phase !== 'Terminated' && !subject.expiry.has(record.expiresAt))
    problems.push(
      `${told} expires at ${record.expiresAt}, and ${[...subject.expiry].join(' or ')} was asked for`,
    )
  problems.push(...checkInstance(real, record).map((p) => `${told} ${p}`))
  return problems
}

/** What a sandbox says of itself is so. */
function checkInstance(real: Real, record: SandboxRecord): string[] {
  const { world, monitor } = real.plane
  const ref = record.instance
  const found = ref === null ? null : world.find(ref.name)
  const container =
    found !== null &&
    ref !== null &&
    isExactly(
      { name: found.name, labels: found.request.labels },
      { installation: monitor.installation, name: ref.name, uid: ref.uid },
    )
      ? found
      : null
  const { phase } = record.status
  if (phase === 'Running') {
    if (container?.state !== 'running' || container.paused) return ['shows Running, and does not run']
    if (container.request.env['V'] !== record.spec.env['V']) return ['runs under an older spec']
    if (container.request.labels[LABEL.specHash] !== record.specHash) return ['runs under another spec']
  }
  if (phase === 'Paused' && container?.paused !== true) return ['shows Paused, and is not']
  if (phase === 'Stopped' && container?.state === 'running') return ['shows Stopped, and runs']
  if ((phase === 'Terminated' || phase === 'Lost') && container !== null)
    return [`shows ${phase}, and is there`]
  return []
}

/** What the sandbox may be in the end. */
function phasesFor(model: Model, real: Real, subject: Subject, record: SandboxRecord): readonly Phase[] {
  const now = real.plane.clock.now()
  const times = [...subject.expiry]
  const has = times.some((at) => at !== null && at <= model.latest)
  const must = times.every((at) => at !== null && at <= now)
  const phases = new Set<Phase>()
  if (has) phases.add('Terminated')
  for (const wish of subject.wishes) {
    if (wish === 'deleted') phases.add('Terminated')
    else if (!must) for (const phase of alive(real, subject, record, wish)) phases.add(phase)
  }
  return [...phases]
}

function alive(
  real: Real,
  subject: Subject,
  record: SandboxRecord,
  wish: 'up' | 'stopped' | 'paused',
): readonly Phase[] {
  const gone: Phase[] =
    record.instance !== null && real.removed.has(record.instance.name) && record.instance.engineId !== null
      ? ['Lost']
      : []
  if (wish === 'stopped') return ['Stopped', ...gone]
  if (wish === 'paused') {
    const ended = subject.killed || subject.removed || subject.shaken
    return ['Paused', ...(ended ? (['Stopped'] as const) : []), ...gone]
  }
  const phases: Phase[] = isBlocked(real, record) ? ['Blocked', 'Failed'] : ['Running']
  if (subject.killed && !subject.always) phases.push('Stopped')
  if (subject.removed && !subject.always) phases.push(...gone)
  return phases
}

/** Something stands in its way that only a person can remove; then it has to say so. */
function isBlocked({ plane, squatters }: Real, record: SandboxRecord): boolean {
  const own = record.instance === null ? null : plane.world.find(record.instance.name)
  const isUp = own !== null && !squatters.has(own.name) && own.state === 'running'
  const imageGone = !plane.world.images.has('img') && !plane.world.registry.has('img')
  const squatted = [...squatters].some(
    (name) => name.startsWith(`hf-${record.id}-`) && plane.world.find(name) !== null,
  )
  const { phase, reason, message } = record.status
  if (phase !== 'Blocked' && phase !== 'Failed')
    return !isUp && (imageGone || squatted) && phase !== 'Running'
  const told = /image|registry|taken|name/i.test(`${reason} ${message}`)
  return told && (imageGone || squatted)
}

function checkVolumes(model: Model, real: Real): string[] {
  const problems: string[] = []
  const { ledger } = real.plane
  for (const row of ledger.volumes.values()) {
    const asked = model.purged.has(row.uid)
    const maybe = asked || model.maybePurged.has(row.claim)
    if (asked && row.state !== 'removed')
      problems.push(`the purge of ${row.physicalName} was acknowledged, and it is ${row.state}`)
    if (row.state !== 'removed') continue
    const owner = row.owner === null ? undefined : ledger.sandboxes.get(row.owner)
    const wentWithOwner = row.retention === 'delete' && owner?.status.phase === 'Terminated'
    if (!maybe && !wentWithOwner) problems.push(`${row.physicalName} is gone, and nobody asked for that`)
  }
  return problems
}
