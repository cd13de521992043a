import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createDockerEngine, type DockerOptions } from '../../src/engines/docker/index.ts'
import type { Engine } from '../../src/engines/engine.ts'
import { systemClock } from '../../src/server/system.ts'
import type { Subject } from '../engines/conformance.ts'
import { requires } from '../engines/required.ts'
import { rawDocker } from './docker-http.ts'
import { ensureTestImage, TEST_IMAGE, TEST_SEED_PATH, TEST_VOLUME_IMAGE, TEST_VOLUME_PATH } from './image.ts'

export const DOCKER_SOCKET = '/var/run/docker.sock'

/** Why tests on the machine's own Docker cannot run, or null. */
export async function dockerAbsent(): Promise<string | null> {
  const answer = await rawDocker(DOCKER_SOCKET, 'GET', '/_ping').catch((error: unknown) => error)
  return answer instanceof Error ? `no Docker answers at ${DOCKER_SOCKET}: ${answer.message}` : null
}

/** Why tests on it may be skipped, or null. Where HOLDFAST_REQUIRE_ENGINES names Docker they run, and fail without it. */
export async function dockerMissing(): Promise<string | null> {
  return requires('docker') ? null : dockerAbsent()
}

/** Why tests that start these programs as root cannot run, or null. */
export function programsMissing(...programs: readonly string[]): string | null {
  if (process.getuid?.() !== 0) return 'they need root, to start daemons of their own'
  const dirs = ['/usr/sbin', '/sbin', ...(process.env['PATH'] ?? '').split(':')]
  const absent = programs.filter((program) => !dirs.some((dir) => existsSync(join(dir, program))))
  return absent.length === 0 ? null : `they need ${absent.join(' and ')}`
}

export function dockerEngine(host: string, over: Partial<DockerOptions> = {}): Engine {
  return createDockerEngine({ id: 'docker', host, clock: systemClock(), ...over })
}

/** The conformance suite's subject on one daemon, with ways round the driver's back. */
export async function dockerSubject(socketPath: string, engine: Engine): Promise<Subject> {
  await ensureTestImage(socketPath)
  const hostDir = await mkdtemp(join(tmpdir(), 'hf-host-'))
  const behind = async (method: string, path: string): Promise<void> => {
    const { status, text } = await rawDocker(socketPath, method, path)
    if (status >= 300) throw new Error(`Docker answered ${status} to ${method} ${path}: ${text}`)
  }
  return {
    engine,
    image: TEST_IMAGE,
    missingImage: '127.0.0.1:9/none:1',
    seeded: { image: TEST_IMAGE, path: TEST_SEED_PATH },
    declares: { image: TEST_VOLUME_IMAGE, path: TEST_VOLUME_PATH },
    removeBehind: (id) => behind('DELETE', `/containers/${id}?force=true`),
    killBehind: (id) => behind('POST', `/containers/${id}/kill`),
    hostDir,
    async cleanup() {
      await engine.close()
      await rm(hostDir, { recursive: true, force: true })
    },
  }
}
