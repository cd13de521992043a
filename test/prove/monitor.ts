import { type CallName, type Fault, MUTATIONS } from '../../src/engines/simulated/faults.ts'
import type { SimContainer } from '../../src/engines/simulated/objects.ts'
import type { World } from '../../src/engines/simulated/world.ts'
import type { CreateInstance, CreateVolume } from '../../src/engines/engine.ts'
import type { Clock } from '../../src/model/clock.ts'
import { isExactly, LABEL } from '../../src/model/labels.ts'
import type { JournalRow, Step, StepKind, VolumeRecord } from '../../src/model/records.ts'
import type { Ledger } from './ledger.ts'

/**
 * What must hold at every instant, checked after every commit and before every call: promises of DESIGN that no crash,
 * fault or race may break even for a moment.
 */
export interface Monitor {
  installation: string
  /** What did not hold, in the order it was found. */
  readonly violations: string[]
  check(): void
  /** A call reaches the engine. */
  called(call: CallName, args: readonly unknown[]): void
  /** A look at the engine was answered, or befell this. */
  answered(call: CallName, args: readonly unknown[], fault: Fault): void
  /** Somebody else does something to these objects: from now on they are not ours to keep. */
  expectGone(name: string): void
  /** True for what somebody else was announced to remove. */
  wasTaken(name: string): boolean
  /** What is there now and is nobody's of ours must stay as it is. */
  guardForeign(): void
  /** The same for one that could be taken for ours by its labels. */
  guard(key: string): void
  /** What the engine itself did to foreign objects is no fault of ours. */
  accept(): void
  /** Somebody asked for a change of this sandbox, which explains some more of them. */
  asked(sandbox: string): void
  /** A foreign object is its owner's to change again. */
  release(name: string): void
  /** `container <name>` or `volume <name>`. */
  isForeign(key: string): boolean
}

/** At most this many changes are asked of the engine for one key in a minute. */
const PER_MINUTE = 20
const MINUTE_MS = 60_000
/** A wish that comes upon another explains this many more: a thaw, a stop and a start. */
const EACH_WISH = 3
const PAYLOAD = '/payload'
const COUNTER = '/starts'

interface Written {
  readonly payload: string
  starts: number
}

export function createMonitor({
  world,
  ledger,
  clock,
}: {
  readonly world: World
  readonly ledger: Ledger
  readonly clock: Clock
}): Monitor {
  const violations: string[] = []
  const written = new Map<string, Written>()
  /** Starts that the workload has counted in its volumes. */
  const worked = new Set<string>()
  const gone = new Set<string>()
  const foreign = new Map<string, string>()
  const guarded = new Set<string>()
  const doubtful = new Set<string>()
  const recent = new Map<string, number[]>()
  const requests = new Map<string, number[]>()
  let volumes = new Set<string>()

  const violate = (what: string): void => {
    const line = `${clock.now()} ${what}`
    if (!violations.some((v) => v.endsWith(what))) violations.push(line)
  }
  const isOurs = (c: SimContainer): boolean => {
    if (guarded.has(`container ${c.name}`)) return false
    const uid = c.request.labels[LABEL.uid]
    return (
      uid !== undefined &&
      isExactly(
        { name: c.name, labels: c.request.labels },
        { installation: monitor.installation, name: c.name, uid },
      )
    )
  }
  const rowOf = (physicalName: string): VolumeRecord | undefined =>
    [...ledger.volumes.values()].find(
      (v) => v.physicalName === physicalName || v.discarded.includes(physicalName),
    )

  /** What runs writes into its volumes, once for each start. */
  function work(running: readonly SimContainer[]): void {
    for (const c of running) {
      const start = `${c.id}/${c.startedAt}`
      if (worked.has(start)) continue
      worked.add(start)
      for (const m of c.mounts) {
        if (m.volume === null || m.readOnly || !world.volumes.has(m.volume)) continue
        const before = written.get(m.volume) ?? { payload: `of ${m.volume}`, starts: 0 }
        written.set(m.volume, { ...before, starts: before.starts + 1 })
        world.writeVolume(m.volume, PAYLOAD, before.payload)
        world.writeVolume(m.volume, COUNTER, String(before.starts + 1))
      }
    }
  }

  function checkData(): void {
    for (const [name, { payload, starts }] of written) {
      const content = world.volumeContent(name)
      // A create that lands after somebody removed the volume makes it again: nothing of ours was in that one.
      if (content === null || (gone.has(name) && Object.keys(content).length === 0)) continue
      if (content[PAYLOAD] !== payload || content[COUNTER] !== String(starts))
        violate(`the data in volume ${name} is not what was written`)
    }
    for (const record of ledger.sandboxes.values()) {
      for (const m of [...record.spec.mounts, ...record.imageMounts]) {
        if (m.kind !== 'volume') continue
        const row = ledger.volumes.get(m.volume)
        if (row === undefined || row.state === 'removed' || row.state === 'removing') continue
        for (const name of written.keys())
          if (name.includes(m.volume) && name !== row.physicalName && !gone.has(name))
            violate(`volume ${name} holds data and was replaced by ${row.physicalName}`)
      }
    }
  }

  /** A volume goes only under a committed consent, or as a half-made one that was never used. */
  function checkRemovals(): void {
    const now = new Set(world.volumes.keys())
    for (const name of volumes)
      if (!now.has(name) && !gone.has(name) && !foreign.has(`volume ${name}`)) checkRemoval(name)
    volumes = now
  }

  function checkRemoval(name: string): void {
    const used = written.delete(name)
    const row = rowOf(name)
    if (row === undefined) {
      // A create that landed late makes a volume again that is long gone, and empty: that goes by its tombstone.
      const buried = [...ledger.tombstones.values()].some((t) => t.kind === 'volume' && t.name === name)
      if (!buried || used) violate(`volume ${name} was removed, and no row knows it`)
      return
    }
    if (row.physicalName !== name) {
      if (used) violate(`volume ${name} was used, and removed as one that never was`)
      return
    }
    if (row.purge === null && row.state !== 'removed')
      violate(`volume ${name} was removed without a committed purge`)
    for (const s of ledger.sandboxes.values()) {
      const mounts = [...s.spec.mounts, ...s.imageMounts]
      if (s.desired !== 'deleted' && mounts.some((m) => m.kind === 'volume' && m.volume === row.uid))
        violate(`volume ${name} was removed, and sandbox ${s.id} mounts it`)
    }
  }

  function checkInstances(running: readonly SimContainer[]): void {
    const live = new Map<string, string>()
    const writers = new Map<string, string>()
    for (const c of running) {
      const sandbox = c.request.labels[LABEL.sandbox] ?? ''
      const other = live.get(sandbox)
      if (other !== undefined) violate(`sandbox ${sandbox} has two live instances: ${other} and ${c.name}`)
      live.set(sandbox, c.name)
      for (const m of c.mounts) {
        if (m.volume === null || m.readOnly || rowOf(m.volume)?.shared === true) continue
        const writer = writers.get(m.volume)
        if (writer !== undefined) violate(`volume ${m.volume} has two writers: ${writer} and ${c.name}`)
        writers.set(m.volume, c.name)
      }
    }
  }

  function checkForeign(): void {
    for (const [key, was] of foreign) if (imageOf(key) !== was) violate(`foreign ${key} was changed`)
  }
  function imageOf(key: string): string {
    const name = key.slice(key.indexOf(' ') + 1)
    if (key.startsWith('volume ')) {
      const v = world.volumes.get(name)
      return v === undefined
        ? 'gone'
        : JSON.stringify([v.name, v.labels, v.createdAt, world.volumeContent(name)])
    }
    const c = world.find(name)
    return c === null
      ? 'gone'
      : JSON.stringify([c.id, c.name, c.request.labels, c.state, c.paused, c.startedAt, c.finishedAt])
  }

  function checkRows(): void {
    for (const s of ledger.sandboxes.values()) {
      if (s.observedGeneration > s.generation)
        violate(`sandbox ${s.id} shows generation ${s.observedGeneration} of ${s.generation}`)
      if (s.deletedAt === null) continue
      for (const c of world.containers.values())
        if (isOurs(c) && c.request.labels[LABEL.sandbox] === s.id && !late(c.name))
          violate(`sandbox ${s.id} is told to be gone, and ${c.name} is there`)
    }
  }
  /** A create that was sent before a crash can land after everything; it is swept then. */
  const late = (name: string): boolean =>
    [...ledger.steps.values()].some((r) => r.step.kind === 'create-instance' && r.step.name === name)

  function stepFor(call: CallName, args: readonly unknown[]): JournalRow | undefined {
    return [...ledger.steps.values()].find((row) => row.state === 'open' && isStepOf(row.step, call, args))
  }

  const monitor: Monitor = {
    installation: '',
    violations,
    check() {
      const running = [...world.containers.values()].filter((c) => c.state === 'running' && isOurs(c))
      work(running)
      checkData()
      checkRemovals()
      checkInstances(running)
      checkForeign()
      checkRows()
    },
    called(call, args) {
      monitor.check()
      if (!MUTATIONS.has(call) || call === 'copyIn') return
      const row = stepFor(call, args)
      const object = objectOf(call, args, world)
      // An image is pulled for each sandbox that needs it.
      const name = call === 'pullImage' ? `${object} for ${row?.key ?? 'nobody'}` : object
      if (row === undefined) violate(`${call} of ${name} was asked for without a committed intent`)
      if ((call === 'removeInstance' || call === 'removeVolume') && doubtful.has(String(args[0])))
        violate(`${call} of ${name} after a look at it that failed`)
      if (call === 'startInstance' && row !== undefined) checkWanted(row)
      const now = clock.monotonic()
      const times = (recent.get(name) ?? []).filter((at) => at > now - MINUTE_MS)
      times.push(now)
      recent.set(name, times)
      const wishes = [...(requests.get(world.find(name)?.request.labels[LABEL.sandbox] ?? '') ?? [])]
      const explained = EACH_WISH * wishes.filter((at) => at > now - MINUTE_MS).length
      if (times.length > PER_MINUTE + explained) violate(`${name}: ${times.length} changes within a minute`)
    },
    answered(call, args, fault) {
      if (call !== 'inspectInstance' && call !== 'inspectVolume') return
      if (fault.kind === 'ok') doubtful.delete(String(args[0]))
      else doubtful.add(String(args[0]))
    },
    expectGone: (name) => void gone.add(name),
    wasTaken: (name) => gone.has(name),
    release(name) {
      foreign.delete(`container ${name}`)
      guarded.delete(`container ${name}`)
    },
    guard(key) {
      guarded.add(key)
      foreign.set(key, imageOf(key))
    },
    accept() {
      for (const key of foreign.keys()) foreign.set(key, imageOf(key))
    },
    asked(sandbox) {
      requests.set(sandbox, [...(requests.get(sandbox) ?? []), clock.monotonic()])
    },
    isForeign: (key) => foreign.has(key),
    guardForeign() {
      foreign.clear()
      for (const c of world.containers.values())
        if (!isOurs(c)) foreign.set(`container ${c.name}`, imageOf(`container ${c.name}`))
      for (const v of world.volumes.values())
        if (rowOf(v.name) === undefined || guarded.has(`volume ${v.name}`))
          foreign.set(`volume ${v.name}`, imageOf(`volume ${v.name}`))
    },
  }

  /** What a user stopped is not started again by an intent that came after the stop. */
  function checkWanted(row: JournalRow): void {
    const record = ledger.sandboxes.get(row.key.slice('sandbox/'.length))
    if (record === undefined || record.desired === 'running' || record.desired === 'paused') return
    // By the order of commits: the wall clock may have jumped in between.
    if ((ledger.meantAt.get(row.id) ?? 0) > (ledger.wantedAt.get(record.id) ?? 0))
      violate(`sandbox ${record.id} is wanted ${record.desired}, and was started after that`)
  }
  return monitor
}

/** The one who is counted: the instance's or volume's name, or the image. */
function objectOf(call: CallName, args: readonly unknown[], world: World): string {
  if (call === 'createInstance' || call === 'createVolume')
    return (args[0] as CreateInstance | CreateVolume).name
  const id = String(args[0])
  return world.find(id)?.name ?? id
}

/** Which kind of intent stands behind a call. */
const KIND_OF: Partial<Record<CallName, StepKind>> = {
  createInstance: 'create-instance',
  createVolume: 'create-volume',
  removeVolume: 'remove-volume',
  pullImage: 'pull-image',
  startInstance: 'start-instance',
  stopInstance: 'stop-instance',
  pauseInstance: 'pause-instance',
  unpauseInstance: 'unpause-instance',
  removeInstance: 'remove-instance',
}

/** By the engine's id where the step has one, else by the name that was chosen. */
function isStepOf(step: Step, call: CallName, [first]: readonly unknown[]): boolean {
  if (step.kind !== KIND_OF[call]) return false
  if ('engineId' in step) return step.engineId === first
  if (step.kind === 'pull-image') return step.image === first
  const name = typeof first === 'string' ? first : (first as CreateInstance | CreateVolume).name
  return step.name === name
}
