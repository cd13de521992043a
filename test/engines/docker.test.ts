import { DOCKER_SOCKET, dockerAbsent, dockerEngine, dockerSubject } from '../support/docker-subject.ts'
import { conformance } from './conformance.ts'
import { describeOn } from './describe-on.ts'

describeOn('docker', await dockerAbsent())("the machine's own Docker", () =>
  conformance('docker', () => dockerSubject(DOCKER_SOCKET, dockerEngine(`unix://${DOCKER_SOCKET}`))),
)
