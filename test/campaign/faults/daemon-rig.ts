import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Sandbox } from '@holdfast/client'
import { type PrivateDaemon, startPrivateDaemon } from '../../support/docker-daemon.ts'
import { rawDocker } from '../../support/docker-http.ts'
import { assertData, engineId, make, putData, reach } from '../stage.ts'
import { until } from '../until.ts'
import { type Life, openRig, type Rig } from '../world.ts'

const RETURN_LIMIT_MS = 120_000

/** A sandbox that no wish is about, on a daemon to which things happen. */
export interface Bystander {
  readonly made: Sandbox
  readonly life: Life
  readonly sum: string
}

export interface PrivateRig {
  readonly rig: Rig
  readonly daemon: PrivateDaemon
  readonly bystander: Bystander
  /** Sandboxes whose instance Docker could not start any more. */
  readonly wedged: Set<string>
  destroy(): Promise<void>
}

/** A server on a Docker daemon of its own, with a bystander that runs. */
export async function openPrivateRig(liveRestore: boolean): Promise<PrivateRig> {
  const daemon = await startPrivateDaemon({ liveRestore })
  try {
    const rig = await openRig('docker', daemon.socketPath)
    const destroy = async (): Promise<void> => {
      // The daemon goes with all that it has, so nothing needs to be removed from it.
      await rig.server.kill()
      await daemon.destroy()
      await rig.server.destroy()
    }
    try {
      await rig.server.start()
      const made = await make(rig, 'bystander')
      const life = await rig.world.life(engineId(made))
      assert.ok(life, 'the engine knows the bystander')
      return {
        rig,
        daemon,
        bystander: { made, life, sum: await putData(rig.server, made.id) },
        wedged: new Set(),
        destroy,
      }
    } catch (error) {
      await destroy()
      throw error
    }
  } catch (error) {
    await daemon.destroy()
    throw error
  }
}

/** It runs in the same instance with its data; with `untouched` it was not even started again. */
export async function assertBystander(
  { rig: { server, world }, bystander }: PrivateRig,
  untouched: boolean,
): Promise<void> {
  const s = await reach(server, bystander.made.id, 'Running', RETURN_LIMIT_MS)
  assert.equal(engineId(s), bystander.life.id, 'the bystander is the same instance')
  const life = await world.life(bystander.life.id)
  if (untouched) assert.deepEqual(life, bystander.life, 'the bystander goes on in the same life')
  await assertData(server, s.id, bystander.sum)
}

/** One instance per sandbox at most, as the engine itself tells. */
export async function assertNoTwins({ rig: { server, world } }: PrivateRig): Promise<void> {
  const { installation } = await server.client.info()
  const seen = (await world.instances(installation)).map((i) => i.sandbox)
  assert.equal(new Set(seen).size, seen.length, `a sandbox has two instances: ${seen.join(' ')}`)
}

const containerdFile = (daemon: PrivateDaemon): string => join(daemon.dir, 'exec/containerd/containerd.pid')

/** The containerd that this daemon started for itself. */
function containerdOf(daemon: PrivateDaemon): number {
  const pid = Number(readFileSync(containerdFile(daemon), 'utf8'))
  const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  // A number from a file is checked before it is killed: the daemon's own directory is among the arguments.
  assert.ok(command.includes(daemon.dir), `process ${pid} is not this daemon's containerd: ${command}`)
  return pid
}

/** SIGKILL, then waits until the daemon has started the next one and answers. */
export async function killContainerd(daemon: PrivateDaemon): Promise<void> {
  const killed = containerdOf(daemon)
  process.kill(killed, 'SIGKILL')
  await until('the daemon has a new containerd', RETURN_LIMIT_MS, async () => {
    if (containerdOf(daemon) === killed) return false
    return (await rawDocker(daemon.socketPath, 'GET', '/info')).status === 200
  })
}
