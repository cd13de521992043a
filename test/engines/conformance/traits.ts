import { expect, test } from 'vitest'
import type { Rig } from './rig.ts'
import type { Traits } from './subject.ts'

/** Nowhere on a host, so that an instance that shares the host's files cannot write there. */
const PATH = '/holdfast-conformance'

/** Keeps a trait from being denied only so that its tests are not registered. */
export function traitTests(rig: Rig): void {
  test('the subject is what its traits say', async () => {
    const found: Traits = {
      isolated: await isIsolated(rig),
      logTimes: await tellsLogTimes(rig),
      seededImage: rig.subject.seeded !== undefined,
      declaringImage: rig.subject.declares !== undefined,
    }
    expect(found).toEqual(rig.traits)
  })
}

async function isIsolated(rig: Rig): Promise<boolean> {
  const name = await rig.volume()
  const mounts = [{ path: PATH, source: { kind: 'volume', name }, readOnly: false, seed: false } as const]
  const { id } = await rig.running({ mounts })
  await rig.exec(id, rig.commands.write(`${PATH}/f`, 'x'))
  return !(await rig.engine.volumeIsEmpty(name, rig.call()))
}

async function tellsLogTimes(rig: Rig): Promise<boolean> {
  const { id } = await rig.running({ entrypoint: rig.commands.say('to out\n', 'to err\n') })
  await rig.ended(id)
  const request = { follow: false, sinceMs: 0, tail: null }
  const times: (number | null)[] = []
  for await (const chunk of await rig.engine.logs(id, request, rig.call())) times.push(chunk.at)
  expect(times, 'the chunks of the log').not.toEqual([])
  return times.every((at) => at !== null)
}
