import { join } from 'node:path'
import { refuse, type Work } from './errors.ts'
import { requireImage } from './image.ts'
import type { InstanceContext } from './instances.ts'
import { type Furnished, launch } from './launch.ts'
import { logSizes, openLogs } from './logs.ts'
import { type Look, settling } from './look.ts'
import {
  baseEnvironment,
  findProgram,
  prepareLinks,
  prepareMounts,
  resetStatus,
  resolveUser,
  sourcesOf,
  writeEnvironment,
} from './prepare.ts'
import { bootId } from './proc.ts'
import { FRESH, placeOf, type Instance, writeState } from './records.ts'
import { ensurePoint, find, type Tree } from './tree.ts'

export interface Starter {
  /** Makes ready on the host what a start mounts. */
  prepare(instance: Instance): Promise<{ tree: Tree; workingDir: string }>
  /** The directory that `asked` means: inside, or on the host with mode `none`. */
  workplace(instance: Instance, tree: Tree, asked: string | null): Promise<string>
  run(instance: Instance, work: Work): Promise<void>
}

export function createStarter(context: InstanceContext, look: Look): Starter {
  const { ground, clock, cgroups } = context
  const { mode } = ground

  /** The working directory, made when it is missing, as other engines do. With mode `none` a place on the host. */
  async function workplace(instance: Instance, tree: Tree, asked: string | null): Promise<string> {
    if (mode !== 'none') return asked === null || asked === '' ? '/' : ensurePoint(tree, asked, 'directory')
    const mount = tree.mounts.find((m) => m.path === '/sandbox') ?? tree.mounts[0]
    if (asked === null || asked === '') return mount?.source ?? join(instance.dir, 'home')
    const found = await find(tree, asked)
    if (found?.kind !== 'directory') throw refuse('invalid', `there is no directory ${asked}`)
    return found.source
  }

  async function prepare(instance: Instance): Promise<{ tree: Tree; workingDir: string }> {
    const image = await requireImage(instance.meta.image, ground.allowed)
    if (mode !== 'none') {
      const tree = await prepareMounts(ground, instance, image)
      return { tree, workingDir: await workplace(instance, tree, instance.meta.workingDir) }
    }
    const sources = await sourcesOf(ground, instance.meta.mounts)
    await prepareLinks(instance, sources)
    const tree: Tree = { layers: ['/'], mounts: sources }
    return { tree, workingDir: await workplace(instance, tree, instance.meta.workingDir) }
  }

  async function furnish(instance: Instance): Promise<Furnished> {
    const { dir, meta } = instance
    const { tree, workingDir } = await prepare(instance)
    const { owner, home } = await resolveUser(mode, tree, meta.user)
    const env = baseEnvironment(ground, instance, home)
    const program = meta.argv[0] ?? ''
    if ((await findProgram(tree, program, env, workingDir)) === null)
      throw refuse('invalid', `the image ${meta.image} has no program "${program}" that can be run`)
    await writeEnvironment(dir, env, workingDir, meta.argv)
    // A volume over /usr/bin would put the sandbox's own program there.
    const covered = tree.mounts.some((m) => m.source !== m.path && context.umount?.startsWith(`${m.path}/`))
    return { user: owner, umount: meta.image === 'host' && !covered ? context.umount : null }
  }

  async function run(instance: Instance, work: Work): Promise<void> {
    const { dir, meta } = instance
    await resetStatus(dir)
    const logStart = await logSizes(dir)
    const logs = openLogs(dir)
    try {
      const launched = await launch(
        {
          mode,
          dir,
          hostname: meta.hostname,
          tag: meta.tag,
          stdio: ['ignore', ...logs.fds],
          detached: true,
          furnish: () => furnish(instance),
          async enter(init) {
            if (cgroups === null || mode === 'none') return
            await cgroups.limit(meta.name, meta.limits, init.pid)
          },
          async ready(init, job) {
            const startedAt = Math.max(clock.now(), (instance.state.startedAt ?? 0) + 1)
            await writeState(dir, {
              ...FRESH,
              phase: 'started',
              init,
              work: job,
              loggers: logs.loggers,
              boot: bootId(),
              place: await placeOf(dir),
              startedAt,
              logStart,
            })
          },
        },
        work,
      )
      context.watch(instance, launched.init)
      launched.child.once('exit', () => void look.load(meta.id).catch(() => undefined)) // only a hint; the next look tells
    } catch (error) {
      // Nothing of it ran, so what held before holds still.
      await context.locks.hold(settling(meta.name), () => writeState(dir, instance.state))
      await cgroups?.remove(meta.name)
      throw error
    } finally {
      logs.close()
    }
    context.notify(meta.name, meta.id, 'start')
  }

  return { prepare, workplace, run }
}
