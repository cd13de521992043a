import { test } from 'vitest'
import { DOCKER_SOCKET, dockerEngine, dockerMissing, dockerSubject } from '../support/docker-subject.ts'
import { conformance } from './conformance.ts'

const missing = await dockerMissing()
if (missing === null)
  conformance('docker', () => dockerSubject(DOCKER_SOCKET, dockerEngine(`unix://${DOCKER_SOCKET}`)))
else test.skip(`docker: ${missing}`, () => undefined)
