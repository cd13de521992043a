import { specHash } from '../../src/model/spec.ts'
import type { ControlPlane } from './control-plane.ts'

/** HOLDFAST_LIVES asks for more of them. */
export const LIVES: number = Number(process.env['HOLDFAST_LIVES'] ?? 24)

/** A small generator, so that a seed names a whole life. */
export function dice(seed: number): (n: number) => number {
  let state = seed * 2_654_435_761 + 1
  return (n) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state % n
  }
}

/** Wishes, waits and crashes on a simulated control plane, decided by the dice. Resolves after so many of them. */
export function randomLife(cp: ControlPlane, roll: (n: number) => number): (steps: number) => Promise<void> {
  const ids: string[] = []
  const acts: readonly (() => Promise<void>)[] = [
    async () =>
      void ids.push(await cp.add({ restartPolicy: roll(2) === 0 ? { kind: 'no' } : { kind: 'always' } })),
    async () => void ids.push(await cp.add({ expiresAt: cp.clock.now() + 30_000 + roll(200_000) })),
    async () => act((id) => cp.want(id, 'stopped')),
    async () =>
      act((id) =>
        cp.change(id, (r) => ({
          desired: 'running',
          desiredReason: 'user',
          desiredAt: cp.clock.now(),
          startAsked: true,
          recoverSeq: r.recoverSeq + 1,
          generation: r.generation + 1,
        })),
      ),
    async () => act((id) => cp.want(id, 'deleted')),
    async () =>
      act(async (id) => {
        await cp.change(id, (r) => {
          const spec = { ...r.spec, env: { V: String(roll(1_000_000)) } }
          return { spec, specHash: specHash(spec), generation: r.generation + 1 }
        })
      }),
    async () => cp.crash(),
  ]
  async function act(fn: (id: string) => Promise<void>): Promise<void> {
    const id = ids[roll(Math.max(1, ids.length))]
    if (id === undefined) return
    const record = await cp.store.read((tx) => tx.sandbox(id))
    if (record !== null && record.deletedAt === null && record.desired !== 'deleted') await fn(id)
  }
  async function live(steps: number): Promise<void> {
    for (let n = 0; n < steps; n++) {
      const before = cp.reconciler
      await acts[roll(acts.length)]?.()
      if (cp.reconciler !== before) await cp.start()
      await cp.clock.advance(roll(3) * roll(4_000))
    }
  }
  return live
}
