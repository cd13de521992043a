import { mkdir, rename, writeFile } from 'node:fs/promises'
import { join, posix } from 'node:path'
import type { CreateInstance } from '../engine.ts'
import { errnoOf, refuse, type Work } from './errors.ts'
import { checkName, discard, exists, runTool, syncDirectory, writeDurably } from './files.ts'
import { DEFAULT_COMMAND, ensureSkeleton, requireImage } from './image.ts'
import type { InstanceContext } from './instances.ts'
import { makeLogPipes } from './logs.ts'
import { checkEnvironment, checkUser, imageTree, sourcesOf } from './prepare.ts'
import { FRESH, instanceId, type Meta, writeState } from './records.ts'
import { contentsOf, type Tree } from './tree.ts'

/** The lock that creation of instances and removal of volumes share. */
export const LAYOUT_LOCK = 'layout'
/** A seed can be large; its call's own limit is what ends it before, milliseconds. */
const SEED_LIMIT_MS = 3_600_000

function checkMounts(request: CreateInstance): void {
  const seen = new Set<string>()
  for (const { path } of request.mounts) {
    const inner = ['/proc', '/sys', '/dev'].some((p) => path === p || path.startsWith(`${p}/`))
    if (!path.startsWith('/') || posix.normalize(path) !== path || path === '/' || inner)
      throw refuse('invalid', `nothing can be mounted at "${path}"`)
    if (seen.has(path)) throw refuse('invalid', `two mounts at ${path}`)
    seen.add(path)
  }
}

/** Makes instances: all of one beside its place, then into it by one rename. */
export function instanceMaker(
  context: InstanceContext,
): (request: CreateInstance, work: Work) => Promise<{ id: string }> {
  const { ground, clock, ids, locks } = context
  const { layout, mode } = ground

  async function seed(request: CreateInstance, tree: Tree, signal: AbortSignal): Promise<void> {
    for (const mount of request.mounts) {
      if (!mount.seed || mount.source.kind !== 'volume') continue
      const contents = mode === 'none' ? [] : await contentsOf(tree, mount.path)
      const data = await ground.volumes.data(mount.source.name)
      for (const content of data === null ? [] : contents) {
        const copied = await runTool('cp', ['-a', '--', `${content}/.`, `${data}/`], {
          limitMs: SEED_LIMIT_MS,
          signal,
        })
        if (copied.code !== 0)
          throw new Error(`the image's ${mount.path} could not be copied: ${copied.stderr}`)
      }
    }
  }

  async function furnish(dir: string, meta: Meta): Promise<void> {
    for (const sub of ['upper', 'work', 'root']) await mkdir(join(dir, sub), { recursive: true, mode: 0o755 })
    if (mode !== 'none') {
      await mkdir(join(dir, 'upper/etc'), { mode: 0o755 })
      await writeFile(join(dir, 'upper/etc/hostname'), `${meta.hostname}\n`)
      await writeFile(
        join(dir, 'upper/etc/hosts'),
        `127.0.0.1 localhost ${meta.hostname}\n::1 localhost ip6-localhost\n`,
      )
    }
    await makeLogPipes(dir)
    await writeDurably(join(dir, 'meta.json'), JSON.stringify(meta))
    await writeState(dir, FRESH)
  }

  async function create(request: CreateInstance, work: Work): Promise<{ id: string }> {
    checkName(request.name, 'an instance')
    checkMounts(request)
    checkEnvironment(request.env)
    checkUser(mode, request.user)
    const image = await requireImage(request.image, ground.allowed)
    if (mode === 'none' && image.kind !== 'host')
      throw refuse('unsupported', 'without isolation there is only the image "host"')
    await sourcesOf(ground, request.mounts)
    const conflict = (): Error => refuse('conflict', `there is an instance named ${request.name}`)
    if (await exists(join(layout.instances, request.name))) throw conflict()
    const { entrypoint, name, labels, env, limits, mounts, workingDir, user, hostname } = request
    const argv = entrypoint.length > 0 ? entrypoint : DEFAULT_COMMAND
    const skeleton = await ensureSkeleton(layout, ids, ground.view)
    const meta: Meta = {
      id: instanceId(name, ids.next()),
      name,
      labels,
      image: request.image,
      argv,
      env,
      limits,
      mounts,
      workingDir,
      user,
      hostname,
      skeleton,
      tag: ids.next(),
      createdAt: clock.now(),
    }
    work.fence()
    const making = join(layout.making, ids.next())
    const place = join(layout.instances, name)
    await mkdir(making, { mode: 0o700 })
    try {
      await furnish(making, meta)
      await seed(request, imageTree(ground, image, skeleton, join(making, 'upper')), work.signal)
      await locks.hold(LAYOUT_LOCK, async () => {
        await sourcesOf(ground, mounts)
        work.signal.throwIfAborted()
        work.fence()
        await rename(making, place)
      })
    } catch (error) {
      await discard(layout, ids, making)
      if (errnoOf(error) === 'ENOTEMPTY' || errnoOf(error) === 'EEXIST') throw conflict()
      throw error
    }
    await syncDirectory(layout.instances)
    context.notify(name, meta.id, 'create')
    return { id: meta.id }
  }

  return create
}
