import { probeIsolation } from '../../src/engines/local/index.ts'
import { conformance } from './conformance.ts'
import type { Traits } from './conformance/subject.ts'
import { describeOn } from './describe-on.ts'
import { busyboxMissing, localRig, localSubject } from './local-subject.ts'

const who = process.getuid?.() === 0 ? 'root' : 'an ordinary user'
const probed = await probeIsolation()
const namespacesMissing = probed === 'namespaces' ? null : probed.none

/** A log is the bytes that a workload wrote, and an image is a directory, which declares nothing. */
const lacks: Partial<Traits> = { logTimes: false, declaringImage: false }

describeOn('local', namespacesMissing)('the host as the image', () =>
  conformance(`local, as ${who}`, async () => localSubject(await localRig('namespaces'), 'namespaces'), {
    ...lacks,
    seededImage: busyboxMissing === null,
  }),
)

describeOn('local', namespacesMissing ?? busyboxMissing)('a directory as the image', () =>
  conformance(
    `local on a directory, as ${who}`,
    async () => localSubject(await localRig('namespaces'), 'namespaces', 'busybox'),
    lacks,
  ),
)

conformance(`local without isolation, as ${who}`, async () => localSubject(await localRig('none'), 'none'), {
  ...lacks,
  isolated: false,
  seededImage: false,
})
