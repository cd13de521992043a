import type { Duplex } from 'node:stream'
import { describe, expect, test } from 'vitest'
import type { Call, EngineEvent } from '../../../src/engines/engine.ts'
import { EngineError, sameRun } from '../../../src/model/facts.ts'
import { refused, type Rig, until, within } from './rig.ts'

export function callTests(rig: Rig): void {
  describe('calls', () => {
    identity(rig)
    frames(rig)
    fences(rig)
    pulls(rig)
  })
  describe('ports', () => ports(rig))
  describe('events', () => events(rig))
}

function identity(rig: Rig): void {
  test('the engine says who it is, and its run is the same from call to call and in the facts', async () => {
    const info = await rig.engine.info(rig.call())
    expect(info.version).not.toBe('')
    expect(info.endpoint).not.toBe('')
    expect(sameRun(info.run, (await rig.engine.info(rig.call())).run)).toBe(true)
    const { id } = await rig.create()
    expect((await rig.facts(id)).run).toEqual(info.run)
  })
}

function frames(rig: Rig): void {
  test('a call that was aborted before it began does nothing', async () => {
    const request = rig.request()
    const call = rig.call({ signal: AbortSignal.abort() })
    await refused(rig.engine.createInstance(request, call), 'aborted', 'none')
    await refused(rig.engine.listInstances(call), 'aborted', 'none')
    expect(await rig.engine.inspectInstance(request.name, rig.call())).toBeNull()
  })

  test('a call is aborted on its way, and its effect is then unknown', async () => {
    const { id } = await rig.running({ entrypoint: rig.commands.ignoreTerm })
    await rig.said(id, 'ready')
    const abort = new AbortController()
    const stopping = rig.engine.stopInstance(id, 30_000, rig.call({ signal: abort.signal }))
    setTimeout(() => abort.abort(), 300)
    await within('the aborted stop', refused(stopping, 'aborted', 'unknown'), 10_000)
  })

  test('a call that takes longer than its limit is a timeout, and its effect is then unknown', async () => {
    const { id } = await rig.running({ entrypoint: rig.commands.ignoreTerm })
    await rig.said(id, 'ready')
    const stopping = rig.engine.stopInstance(id, 30_000, rig.call({ limitMs: 400 }))
    await within('the stop to time out', refused(stopping, 'timeout', 'unknown'), 10_000)
  })
}

function fences(rig: Rig): void {
  test('a fence that refuses is asked before every change, and nothing is done', async () => {
    const { id } = await rig.running()
    const volume = await rig.volume()
    const before = await rig.facts(id)
    const fenced = (): Call => ({
      ...rig.call(),
      fence: () => {
        throw new EngineError('fenced', 'none', 'another control plane has taken over')
      },
    })
    const { engine } = rig
    const request = rig.request()
    const unmade = rig.name('unmade')
    await refused(engine.createInstance(request, fenced()), 'fenced', 'none')
    await refused(engine.startInstance(id, fenced()), 'fenced', 'none')
    await refused(engine.stopInstance(id, 1_000, fenced()), 'fenced', 'none')
    if (engine.capabilities.pause) await refused(engine.pauseInstance(id, fenced()), 'fenced', 'none')
    await refused(engine.removeInstance(id, fenced()), 'fenced', 'none')
    await refused(
      engine.createVolume({ name: unmade, labels: rig.labels(), sizeBytes: null }, fenced()),
      'fenced',
      'none',
    )
    await refused(engine.removeVolume(volume, fenced()), 'fenced', 'none')
    expect(await engine.inspectInstance(request.name, rig.call())).toBeNull()
    expect(await engine.inspectVolume(unmade, rig.call())).toBeNull()
    expect(await engine.inspectVolume(volume, rig.call())).not.toBeNull()
    expect(await rig.facts(id)).toEqual(before)
  })

  test('reads ask no fence', async () => {
    const call = rig.call({
      fence: () => {
        throw new EngineError('fenced', 'none', 'asked on a read')
      },
    })
    await rig.engine.info(call)
    await rig.engine.listInstances(call)
    await rig.engine.listVolumes(call)
    expect(await rig.engine.inspectInstance(rig.name('never'), call)).toBeNull()
    expect(await rig.engine.inspectVolume(rig.name('never'), call)).toBeNull()
    expect(await rig.engine.inspectImage(rig.subject.image, call)).not.toBeNull()
  })
}

function pulls(rig: Rig): void {
  test('the pull of an image that is nowhere is refused', async () => {
    const pulling = rig.engine.pullImage(rig.subject.missingImage, () => undefined, rig.call())
    await refused(pulling, rig.engine.capabilities.pull ? 'image-missing' : 'unsupported')
  })
}

/** Reads until this much has come, then lets go of the socket. */
async function exchange(socket: Duplex, text: string): Promise<string> {
  let got = ''
  const whole = new Promise<string>((resolve, reject) => {
    socket.once('error', reject)
    socket.once('close', () => resolve(got))
    socket.on('data', (chunk: Buffer) => {
      got += chunk.toString()
      if (got.length >= text.length) resolve(got)
    })
  })
  socket.write(text)
  try {
    return await within('the echo', whole)
  } finally {
    socket.destroy()
  }
}

function ports(rig: Rig): void {
  // Above the usual ephemeral ranges' start and random, because some engines share the host's network.
  const somePort = (): number => 20_000 + Math.floor(Math.random() * 10_000)

  test('a listening port is reached, a refused one says so', async () => {
    const port = somePort()
    const { id } = await rig.running({ entrypoint: rig.commands.echoServer(port) })
    if (!rig.engine.capabilities.dial)
      return void (await refused(rig.engine.dial(id, port, rig.call()), 'unsupported', 'none'))
    await refused(rig.engine.dial(id, port === 29_999 ? 20_000 : port + 1, rig.call()), 'failed', 'none')
    const socket = await until('the port to listen', async () => {
      try {
        return await rig.engine.dial(id, port, rig.call())
      } catch (error) {
        if (error instanceof EngineError && error.kind === 'failed') return undefined
        throw error
      }
    })
    expect(await exchange(socket, 'ping through the port\n')).toBe('ping through the port\n')
  })

  test('an instance that does not run refuses', async () => {
    if (!rig.engine.capabilities.dial) return
    const { id } = await rig.create()
    await refused(rig.engine.dial(id, 80, rig.call()), 'conflict', 'none')
  })
}

function events(rig: Rig): void {
  test('creation, start, end and removal are hinted at, and the iterator ends with its signal', async () => {
    const abort = new AbortController()
    const seen: EngineEvent[] = []
    const reading = (async () => {
      for await (const event of rig.engine.events(abort.signal)) seen.push(event)
    })()
    try {
      // Whatever is made before the stream is open is not in it: knock until something comes.
      await until('the event stream to open', async () => {
        const { id } = await rig.create()
        await rig.engine.removeInstance(id, rig.call())
        return seen.some((e) => e.kind === 'instance') || undefined
      })
      const hint = async (what: string, name: string, act: () => Promise<unknown>): Promise<void> => {
        const mark = seen.length
        await act()
        await until(
          `a hint of the ${what}`,
          () => seen.slice(mark).some((e) => e.kind === 'instance' && e.name === name) || undefined,
        )
      }
      const request = rig.request({ entrypoint: rig.commands.run })
      await hint('creation', request.name, () => rig.create(request))
      const { id } = await rig.facts(request.name)
      await hint('start', request.name, () => rig.engine.startInstance(id, rig.call()))
      await hint('end', request.name, () => rig.engine.stopInstance(id, 5_000, rig.call()))
      await hint('removal', request.name, () => rig.engine.removeInstance(id, rig.call()))
    } finally {
      abort.abort()
      await within('the event stream to end', reading)
    }
  })
}
