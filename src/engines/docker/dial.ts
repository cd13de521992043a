import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { EngineError } from '../../model/facts.ts'
import { type Api, budget } from '../docker-api/api.ts'
import type { Instances } from '../docker-api/instances.ts'
import type { ContainerInspect } from '../docker-api/types.ts'
import type { Call } from '../engine.ts'

/**
 * Connects to a port by the container's address. Addresses are given to the next container when one ends, so that id
 * and start time are looked at before and after: a connection that was made in between reached this container.
 */
export async function dialContainer(
  api: Api,
  instances: Instances,
  id: string,
  port: number,
  call: Call,
): Promise<Duplex> {
  const rest = budget(api.clock, call)
  const what = `connecting to port ${port} of instance ${id}`
  const before = await target(instances, id, what, rest())
  const socket = await open(before.address, port, what, api, rest())
  try {
    const after = await target(instances, id, what, rest())
    if (after.id !== before.id || after.startedAt !== before.startedAt || after.address !== before.address)
      throw new EngineError('failed', 'none', `${what}: it was restarted on the way`)
    return socket
  } catch (error) {
    socket.destroy()
    throw error
  }
}

interface Target {
  readonly id: string
  readonly startedAt: string
  readonly address: string
}

async function target(instances: Instances, id: string, what: string, call: Call): Promise<Target> {
  const found = await instances.look(id, call)
  if (found === null) throw new EngineError('not-found', 'none', `${what}: there is no such instance`)
  if (!found.State.Running || found.State.Paused)
    throw new EngineError('conflict', 'none', `${what}: it does not run`)
  const address = addressOf(found)
  if (address === null) throw new EngineError('unsupported', 'none', `${what}: it has no network address`)
  return { id: found.Id, startedAt: found.State.StartedAt, address }
}

function addressOf(found: ContainerInspect): string | null {
  const networks = Object.values(found.NetworkSettings?.Networks ?? {})
  const addresses = [found.NetworkSettings?.IPAddress, ...networks.map((network) => network?.IPAddress)]
  return addresses.find((address) => address !== undefined && address !== '') ?? null
}

function open(host: string, port: number, what: string, api: Api, call: Call): Promise<Socket> {
  return new Promise((resolve, reject) => {
    // Half-open: a client that has sent all still reads the answer.
    const socket = connect({ host, port, allowHalfOpen: true, noDelay: true })
    const end = (error: EngineError | null): void => {
      off()
      call.signal?.removeEventListener('abort', onAbort)
      socket.removeListener('error', onError)
      if (error === null) return resolve(socket)
      socket.destroy()
      reject(error)
    }
    const onAbort = (): void => end(new EngineError('aborted', 'none', `${what} was aborted`))
    const onError = (error: Error): void =>
      end(new EngineError('failed', 'none', `${what}: ${error.message}`, { cause: error }))
    const off = api.clock.after(call.limitMs, () =>
      end(new EngineError('timeout', 'none', `${what} was not done after ${call.limitMs} ms`)),
    )
    call.signal?.addEventListener('abort', onAbort, { once: true })
    socket.once('error', onError)
    socket.once('connect', () => end(null))
  })
}
