import { describe, expect, it } from 'vitest'
import { aRef, aSandbox, aVolume, createStep, NOW, openRow, view } from '../../test/support/plan.ts'
import { planSandbox } from './sandbox.ts'

const HOUR_MS = 3_600_000

describe('a clock that stepped back', () => {
  const deleted = aSandbox({
    desired: 'deleted',
    desiredReason: 'user',
    instance: aRef({ engineId: null }),
    instanceSeq: 1,
  })
  const volumes = { volumes: [aVolume()] }

  it('does not make a delete wait for a create for as long as it stepped', () => {
    const open = (deadlineAt: number): ReturnType<typeof planSandbox> =>
      planSandbox(view(deleted, null, { ...volumes, open: [openRow(createStep, { deadlineAt })] }))
    expect(open(NOW + 10_000).record.deletedAt).toBeNull()
    expect(open(NOW + HOUR_MS).record.deletedAt).toBe(NOW)
  })

  it('nor a doubt that is remembered', () => {
    const doubt = (createDoubtUntil: number): ReturnType<typeof planSandbox> =>
      planSandbox(view({ ...deleted, createDoubtUntil }, null, volumes))
    expect(doubt(NOW + 10_000).record.deletedAt).toBeNull()
    expect(doubt(NOW + HOUR_MS).record.deletedAt).toBe(NOW)
  })
})
