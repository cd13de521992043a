import type { Decide } from '../../../src/api/intents/lifecycle.ts'
import * as life from '../../../src/api/intents/lifecycle.ts'
import type { CreateRequest } from '../../../src/api/rules/create.ts'
import type { Plane } from '../plane.ts'
import { claim, type User } from '../user.ts'

/** One request of a client. Names stand for sandboxes, in the order of their creation for all clients together. */
export type Request =
  | { readonly kind: 'create'; readonly as: string; readonly change: Partial<CreateRequest> }
  | { readonly kind: 'ask'; readonly of: string; readonly wish: string; readonly decide: Decide }
  | { readonly kind: 'renew'; readonly of: string; readonly byMs: number }
  | { readonly kind: 'purge'; readonly claim: string }

/** The smallest beginnings of all that can go wrong between two clients, a reconciler, an engine and a crash. */
export interface Scene {
  readonly name: string
  /** How often time passes to the next thing that comes by itself. */
  readonly times: number
  /** Whether the process dies once: it does wherever all states can be visited with that. */
  readonly crash: boolean
  /** What there is when the clients begin. Gives the sandboxes by name. */
  readonly before: (user: User, plane: Plane) => Promise<Readonly<Record<string, string>>>
  readonly a: readonly Request[]
  readonly b: readonly Request[]
}

const bare: Partial<CreateRequest> = { workspace: false }
const ask = (of: string, wish: string, decide: Decide): Request => ({ kind: 'ask', of, wish, decide })

async function running(user: User, change: Partial<CreateRequest> = bare): Promise<string> {
  const id = await user.create(change)
  await user.until(id, 'Running')
  return id
}

const BOTH: Partial<CreateRequest> = { ...bare, mounts: [claim('both', { shared: true })] }

/** A volume of nobody's, which any sandbox may mount. */
async function sharing(user: User): Promise<Partial<CreateRequest>> {
  await user.createVolume('both', { shared: true })
  await user.pass(1_000)
  return BOTH
}

/** The one who goes purges what the other one is about to mount. */
const SHARED: Pick<Scene, 'a' | 'b'> = {
  a: [ask('one', 'deleted', life.remove), { kind: 'purge', claim: 'both' }],
  b: [{ kind: 'create', as: 'two', change: BOTH }],
}

export const SCENES: readonly Scene[] = [
  {
    name: 'create/delete',
    times: 0,
    crash: true,
    before: async () => ({}),
    a: [{ kind: 'create', as: 'one', change: bare }],
    b: [ask('one', 'deleted', life.remove)],
  },
  {
    name: 'create with a workspace/delete',
    times: 0,
    crash: false,
    before: async () => ({}),
    a: [{ kind: 'create', as: 'one', change: {} }],
    b: [ask('one', 'deleted', life.remove)],
  },
  {
    name: 'stop/start',
    times: 1,
    crash: true,
    before: async (user) => ({ one: await running(user) }),
    a: [ask('one', 'stopped', life.stop)],
    b: [ask('one', 'up', life.start)],
  },
  {
    name: 'stop/start, stop',
    times: 0,
    crash: true,
    before: async (user) => ({ one: await running(user) }),
    a: [ask('one', 'stopped', life.stop)],
    b: [ask('one', 'up', life.start), ask('one', 'stopped', life.stop)],
  },
  {
    name: 'delete/recover',
    times: 0,
    crash: true,
    async before(user) {
      const one = await running(user)
      await user.behind((behind, name) => behind.remove(name), one)
      await user.until(one, 'Lost')
      return { one }
    },
    a: [ask('one', 'deleted', life.remove)],
    b: [ask('one', 'up', life.recover)],
  },
  {
    name: 'expiry/renew',
    times: 2,
    crash: true,
    async before(user) {
      const one = await running(user, { ...bare, timeoutMs: 60_000 })
      // One and a half ticks are left of it.
      await user.pass(58_500)
      return { one }
    },
    a: [{ kind: 'renew', of: 'one', byMs: 3_600_000 }],
    b: [ask('one', 'stopped', life.stop)],
  },
  {
    name: 'shared volume',
    times: 0,
    crash: false,
    before: async (user) => ({ one: await running(user, await sharing(user)) }),
    ...SHARED,
  },
  {
    name: 'shared volume, its first user is stopped',
    times: 0,
    crash: true,
    async before(user) {
      const one = await running(user, await sharing(user))
      await user.ask(one, life.stop)
      await user.until(one, 'Stopped')
      return { one }
    },
    ...SHARED,
  },
]
