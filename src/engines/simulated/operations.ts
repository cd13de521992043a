import { sleep } from '../../model/clock.ts'
import { EngineError } from '../../model/facts.ts'
import { LABEL } from '../../model/labels.ts'
import type { CreateInstance, CreateMount, CreateVolume, ExecRequest } from '../engine.ts'
import { createFileView, emptyTree, type FileView, subtree, type Tree } from './files.ts'
import type { SimContainer, SimImage, SimMount } from './objects.ts'
import { type Process, type ProcessSetup, type Sink, spawn } from './process.ts'
import { findProgram } from './programs.ts'
import type { World } from './world.ts'

/** What a daemon does, on the world as it is. Each throws an `EngineError` with effect `none`, or has happened. */

const none = (kind: EngineError['kind'], message: string): EngineError =>
  new EngineError(kind, 'none', message)

export function mustFind(world: World, id: string): SimContainer {
  const container = world.find(id)
  if (container === null) throw none('not-found', `there is no instance ${id}`)
  return container
}

function report(world: World, c: SimContainer, action: string): void {
  world.emit({ kind: 'instance', name: c.name, id: c.id, action, at: world.clock.now() })
}

/** True when it was made, false when it was there. */
export function createVolume(world: World, request: CreateVolume): boolean {
  if (world.volumes.has(request.name)) return false
  const { name, labels } = request
  world.volumes.set(name, { name, labels: { ...labels }, createdAt: world.clock.now(), tree: emptyTree() })
  world.emit({ kind: 'volume', name, action: 'create', at: world.clock.now() })
  return true
}

export function removeVolume(world: World, name: string): boolean {
  for (const c of world.containers.values())
    if (c.mounts.some((m) => m.volume === name))
      throw none('conflict', `volume ${name} is in use by ${c.name}`)
  if (!world.volumes.delete(name)) return false
  world.emit({ kind: 'volume', name, action: 'destroy', at: world.clock.now() })
  return true
}

/** Makes the volumes that a create needs, silently and unlabelled where they are missing, as engines do. */
function ensureMounts(world: World, request: CreateInstance, image: SimImage): SimMount[] {
  const silent = (name: string): string => {
    createVolume(world, { name, labels: {}, sizeBytes: null })
    return name
  }
  const asked = request.mounts.map(({ path, readOnly, source }): SimMount => {
    if (source.kind === 'host') return { path, readOnly, volume: null, host: source.path }
    return { path, readOnly, volume: silent(source.name), host: null }
  })
  const covered = new Set(asked.map((m) => m.path))
  const anonymous = image.volumes
    .filter((path) => !covered.has(path))
    .map((path): SimMount => ({ path, readOnly: false, volume: silent(world.nextId()), host: null }))
  return [...asked, ...anonymous]
}

function seed(world: World, image: SimImage, mount: CreateMount, most: number): void {
  const from = subtree(image.tree, mount.path)
  const to = mount.source.kind === 'volume' ? world.volumes.get(mount.source.name) : undefined
  if (from === null || to === undefined) return
  for (const [path, node] of [...from].slice(0, most)) to.tree.set(path, node)
}

function checkCreate(world: World, request: CreateInstance): SimImage {
  const taken = world.find(request.name)
  if (taken !== null) throw none('conflict', `the name ${request.name} is taken by ${taken.id}`)
  const image = world.images.get(request.image)
  if (image === undefined) throw none('image-missing', `there is no image ${request.image}`)
  return image
}

export function createContainer(world: World, request: CreateInstance): SimContainer {
  const image = checkCreate(world, request)
  const mounts = ensureMounts(world, request, image)
  for (const mount of request.mounts) if (mount.seed) seed(world, image, mount, Infinity)
  const container: SimContainer = {
    id: world.nextId(),
    name: request.name,
    // An image's labels come along, which is why a label alone proves nothing.
    request: { ...request, labels: { ...image.labels, ...request.labels } },
    image,
    createdAt: world.clock.now(),
    mounts,
    layer: new Map(image.tree),
    log: [],
    watchers: new Set(),
    execs: new Set(),
    ports: new Set(),
    process: null,
    state: 'created',
    paused: false,
    startedAt: null,
    finishedAt: null,
    exitCode: null,
    oomKilled: false,
    endedBy: null,
    zombie: false,
  }
  world.containers.set(container.id, container)
  report(world, container, 'create')
  return container
}

/** A create that was cut off in the middle: its volumes are there, one half seeded, and it is not. */
export function tearCreate(world: World, request: CreateInstance): void {
  const image = checkCreate(world, request)
  ensureMounts(world, request, image)
  const mount = request.mounts.find((m) => m.seed)
  // The root and the first entry of at least two: more than nothing, less than all.
  if (mount !== undefined) seed(world, image, mount, 2)
}

export function filesOf(world: World, c: SimContainer): FileView {
  const tree = (m: SimMount): Tree => {
    if (m.volume !== null) return world.volumes.get(m.volume)?.tree ?? emptyTree()
    return world.hostTree(m.host ?? '/')
  }
  return createFileView(
    c.layer,
    c.mounts.map((m) => ({ path: m.path, readOnly: m.readOnly, tree: tree(m) })),
  )
}

function wake(c: SimContainer): void {
  for (const watcher of c.watchers) watcher()
}

/** The end of a run, however it came. */
export function finish(world: World, c: SimContainer, code: number): void {
  if (c.state !== 'running') return
  const process = c.process
  c.process = null
  c.state = 'exited'
  c.paused = false
  c.zombie = false
  c.exitCode = code
  const now = world.clock.now()
  // A restart may stamp a start one millisecond ahead; a wall clock that jumped back shows as it does for real.
  c.finishedAt = c.startedAt === now + 1 ? now + 1 : now
  c.ports.clear()
  process?.signal('KILL')
  for (const exec of c.execs) exec.signal('KILL')
  wake(c)
  if (world.daemon.up) report(world, c, 'die')
}

function setup(world: World, c: SimContainer, over: Partial<ProcessSetup>): ProcessSetup {
  const log =
    (stream: 'stdout' | 'stderr'): Sink =>
    async (data) => {
      c.log.push({ stream, at: world.clock.now(), data })
      wake(c)
    }
  return {
    env: { ...c.image.env, ...c.request.env },
    workingDir: c.request.workingDir ?? '/',
    user: c.request.user ?? c.image.user,
    hostname: c.request.hostname,
    files: filesOf(world, c),
    stdin: async () => null,
    stdout: log('stdout'),
    stderr: log('stderr'),
    terminal: () => null,
    listen: (port) => void c.ports.add(port),
    ...over,
  }
}

export function startContainer(world: World, c: SimContainer): boolean {
  if (c.state === 'running') return false
  const entrypoint = c.request.entrypoint
  const command = entrypoint.length > 0 ? entrypoint : [...c.image.entrypoint, ...c.image.command]
  const program = findProgram(command, true)
  if (program === null) throw none('invalid', `${c.name}: ${command.join(' ')}: not found`)
  const now = world.clock.now()
  // Two runs never share a start time: it is what tells them apart.
  c.startedAt = c.startedAt === now ? now + 1 : now
  c.state = 'running'
  c.finishedAt = null
  c.exitCode = null
  c.oomKilled = false
  c.endedBy = 'own'
  const process = spawn(world.clock, program, setup(world, c, {}))
  c.process = process
  report(world, c, 'start')
  void process.ended.then((code) => {
    if (c.process === process) finish(world, c, code)
  })
  return true
}

export function execIn(
  world: World,
  c: SimContainer,
  request: ExecRequest,
  io: Partial<ProcessSetup>,
): Process {
  if (c.zombie) throw none('failed', `${c.name} does not answer`)
  if (c.state !== 'running') throw none('conflict', `${c.name} is not running`)
  if (c.paused) throw none('conflict', `${c.name} is paused`)
  const program = findProgram(request.command, false)
  if (program === null) throw none('not-found', `${request.command[0] ?? ''}: not found in ${c.name}`)
  const base = setup(world, c, io)
  const process = spawn(world.clock, program, {
    ...base,
    env: { ...base.env, ...request.env },
    workingDir: request.workingDir ?? base.workingDir,
    user: request.user ?? base.user,
  })
  c.execs.add(process)
  void process.ended.then(() => c.execs.delete(process))
  return process
}

export async function stopContainer(world: World, c: SimContainer, graceMs: number): Promise<boolean> {
  const process = c.process
  if (c.state !== 'running' || process === null) return false
  if (c.zombie) throw new EngineError('failed', 'unknown', `${c.name} was killed and did not end`)
  c.endedBy = 'external'
  thaw(c)
  process.signal('TERM')
  const given = new AbortController()
  const patience = sleep(world.clock, graceMs, given.signal).then(
    () => process.signal('KILL'),
    () => undefined, // It ended in time.
  )
  await process.ended
  given.abort(new Error('ended'))
  await patience
  return true
}

export function killContainer(c: SimContainer): boolean {
  if (c.state !== 'running' || c.zombie) return false
  c.endedBy = 'external'
  c.process?.signal('KILL')
  return true
}

function thaw(c: SimContainer): void {
  c.paused = false
  c.process?.thaw()
  for (const exec of c.execs) exec.thaw()
}

export function pauseContainer(world: World, c: SimContainer): boolean {
  if (c.state !== 'running') throw none('conflict', `${c.name} is not running`)
  if (c.paused) return false
  c.paused = true
  c.process?.freeze()
  for (const exec of c.execs) exec.freeze()
  report(world, c, 'pause')
  return true
}

export function unpauseContainer(world: World, c: SimContainer): boolean {
  if (c.state !== 'running') throw none('conflict', `${c.name} is not running`)
  if (!c.paused) return false
  thaw(c)
  report(world, c, 'unpause')
  return true
}

export function removeContainer(world: World, id: string): boolean {
  const c = world.containers.get(id)
  if (c === undefined) return false
  if (c.zombie) throw new EngineError('failed', 'unknown', `${c.name} was killed and did not end`)
  finish(world, c, 137)
  world.containers.delete(id)
  report(world, c, 'destroy')
  return true
}

export function isOurs(c: SimContainer): boolean {
  return c.request.labels[LABEL.installation] !== undefined
}
