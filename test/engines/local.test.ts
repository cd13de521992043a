import { test } from 'vitest'
import { probeIsolation } from '../../src/engines/local/index.ts'
import { conformance } from './conformance.ts'
import { localRig, localSubject } from './local-subject.ts'

const who = process.getuid?.() === 0 ? 'root' : 'an ordinary user'
const probed = await probeIsolation()

if (probed === 'namespaces') {
  conformance(`local, as ${who}`, async () => localSubject(await localRig('namespaces'), 'namespaces'))
  conformance(`local on a directory, as ${who}`, async () =>
    localSubject(await localRig('namespaces'), 'namespaces', 'busybox'),
  )
} else if ((process.env['HOLDFAST_REQUIRE_ENGINES'] ?? '') !== '')
  test('local needs namespaces', () => {
    throw new Error(probed.none)
  })
else test.skip(`local: ${probed.none}`, () => undefined)

conformance(`local without isolation, as ${who}`, async () => localSubject(await localRig('none'), 'none'))
