import { createHash } from 'node:crypto'
import type { World } from '../../../src/engines/simulated/world.ts'
import type { Ledger } from '../ledger.ts'
import type { Life } from '../plane.ts'
import { type Pending, type Steering, tell } from './steering.ts'

/** All rows that anything is decided by; without counters that only grow, and times that nothing goes by. */
export function rowsOf({ sandboxes, volumes, steps, tombstones }: Ledger): string {
  return JSON.stringify([
    [...sandboxes.values()].map(({ version: _v, updatedAt: _u, ...row }) => row),
    [...volumes.values()].map(({ version: _v, ...row }) => row),
    [...steps.values()]
      .filter((row) => row.state === 'open')
      .map(({ key, step, attempts, deadlineAt }) => [key, step, attempts, deadlineAt]),
    [...tombstones.keys()].toSorted(),
  ])
}

export function versionsOf({ sandboxes, volumes }: Ledger): string {
  return [...sandboxes.values(), ...volumes.values()].map((row) => `${row.version}`).join()
}

function worldOf(world: World): unknown {
  return [
    [...world.containers.values()].map((c) => [
      c.name,
      c.id,
      c.state,
      c.createdAt,
      c.startedAt,
      c.finishedAt,
      c.exitCode,
      c.endedBy,
      c.mounts.map((m) => m.volume),
    ]),
    [...world.volumes.values()].map((v) => [v.name, v.createdAt, v.labels, world.volumeContent(v.name)]),
  ]
}

/**
 * The state of everything, without what names it: ids stand for themselves only by the order in which they come, so
 * that two ways that differ in nothing else lead to the same state.
 */
export function stateOf(parts: {
  readonly ledger: Ledger
  readonly world: World
  readonly life: Life
  readonly steering: Steering
  readonly now: number
  /** Progress of the clients, and what is left of what can happen. */
  readonly rest: unknown
}): string {
  const { ledger, world, life, steering } = parts
  const versions = versionsOf(ledger)
  const sent = (p: Pending): unknown => [
    p.name,
    p.about,
    p.sentAt,
    tell(p.result),
    p.thread.rows,
    p.thread.versions === versions,
    p.thread.answers,
  ]
  const names = new Map<string, string>()
  const plain = (what: unknown): string =>
    JSON.stringify(what).replaceAll(/[0-9a-f]{40,64}|(?<![a-z0-9])[a-z0-9]{16}(?![a-z0-9])/g, (id) => {
      const name = names.get(id) ?? `#${names.size}`
      names.set(id, name)
      return name
    })
  const { fresh, background, running, again, delayed } = life.reconciler.describe()
  const health = life.reconciler.health('sim').ok
  // Rows and objects come first, in the order of their making: they give the names by which the rest can be sorted.
  const text = [
    plain([parts.now, rowsOf(ledger), worldOf(world), health, life.reconciler.recovered, parts.rest]),
    ...[...steering.pending.values()].map((p) => plain(sent(p))).toSorted(),
    ...[...steering.astray.values()].map((p) => plain([p.name, p.about])).toSorted(),
    plain([fresh, background]),
    ...running.map((key) => plain(['runs', key])).toSorted(),
    ...again.map((key) => plain(['runs again', key])).toSorted(),
    ...delayed.map(plain).toSorted(),
  ]
  return createHash('sha1').update(text.join('\n')).digest('base64')
}
