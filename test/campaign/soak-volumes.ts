import type { Volume } from '@holdfast/client'
import type { Random } from './random.ts'
import type { SoakSandbox } from './soak-history.ts'
import type { SoakCaller } from './soak-requests.ts'
import { request } from './soak-requests.ts'

/** A volume that a client made ahead of use; several of its sandboxes may mount it. */
export interface Claim {
  readonly name: string
  readonly uid: string
  /** A purge was sent; whether it was recorded may be unknown. */
  purged: boolean
}

/** Claims of one client at once. */
const CLAIMS_MAX = 2

/** Makes one, or asks for the removal of one: of one that is held, which is refused, or of a free one. */
export async function tendVolumes(
  o: SoakCaller,
  random: Random,
  claims: Claim[],
  mine: readonly SoakSandbox[],
): Promise<void> {
  const present = claims.filter((c) => !c.purged)
  if (present.length < CLAIMS_MAX) {
    const name = `${o.name}-shared-${claims.length}`
    const { answer } = await request<Volume>(o, {
      target: `volume ${name}`,
      action: 'volume create',
      method: 'POST',
      path: '/volumes',
      body: { claimName: name, shared: true },
      keyed: true,
    })
    if (answer?.status === 201) claims.push({ name, uid: answer.body.uid, purged: false })
    else
      o.history.violated(`volume create ${name} answered ${answer?.status}: ${JSON.stringify(answer?.body)}`)
    return
  }
  const claim = random.pick(present)
  const holders = mine.filter((s) => s.claim === claim.name)
  const held = holders.some((s) => s.desired !== 'deleted' && !s.expires && !s.deleteAsked)
  const free = holders.every((s) => s.desired === 'deleted')
  if (!held && !free) return
  // Whether it was recorded or not: from now on its data may go.
  if (free) {
    claim.purged = true
    for (const s of holders) s.claim = null
  }
  const { answer } = await request(o, {
    target: `volume ${claim.name}`,
    action: 'purge',
    method: 'DELETE',
    path: `/volumes/${claim.uid}`,
    tries: free ? undefined : 20,
  })
  if (held && answer !== null && answer.status !== 409)
    o.history.violated(`the purge of ${claim.name}, which is mounted, answered ${answer.status}`)
  // 409: the delete of its last holder is not finished yet.
  if (free && answer?.status === 409) claim.purged = false
}
