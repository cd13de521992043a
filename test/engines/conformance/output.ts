import { describe, expect, test } from 'vitest'
import type { LogChunk, LogRequest } from '../../../src/engines/engine.ts'
import { refused, type Rig, within } from './rig.ts'

/** Later than now on every engine's clock, milliseconds. */
const FUTURE_MS = 3_600_000
const ALL: LogRequest = { follow: false, sinceMs: 0, tail: null }

export function outputTests(rig: Rig): void {
  const chunks = async (id: string, over: Partial<LogRequest> = {}): Promise<LogChunk[]> => {
    const out: LogChunk[] = []
    for await (const chunk of await rig.engine.logs(id, { ...ALL, ...over }, rig.call())) out.push(chunk)
    return out
  }
  const text = (all: readonly LogChunk[]): string => Buffer.concat(all.map((c) => c.data)).toString()

  describe('logs', () => {
    test('both streams are kept apart, also after the end and after a restart', async () => {
      const { id } = await rig.running({ entrypoint: rig.commands.say('to out\n', 'to err\n') })
      await rig.ended(id)
      expect(await rig.logs(id)).toEqual({ stdout: 'to out\n', stderr: 'to err\n' })
      await rig.engine.startInstance(id, rig.call())
      await rig.ended(id)
      expect((await rig.logs(id)).stdout).toBe('to out\nto out\n')
    })

    test('an instance that never ran has none', async () => {
      const { id } = await rig.create()
      expect(await chunks(id)).toEqual([])
    })

    test('tail gives the last lines', async () => {
      const lines = Array.from({ length: 50 }, (_, i) => `line ${i}\n`)
      const { id } = await rig.running({ entrypoint: rig.commands.say(lines.join(''), '') })
      await rig.ended(id)
      expect(text(await chunks(id, { tail: 3 }))).toBe('line 47\nline 48\nline 49\n')
      expect(text(await chunks(id, { tail: 500 }))).toBe(lines.join(''))
    })

    test('nothing was written since a time to come', async () => {
      const { id } = await rig.running({ entrypoint: rig.commands.say('to out\n', 'to err\n') })
      await rig.ended(id)
      expect(await chunks(id, { sinceMs: Date.now() + FUTURE_MS })).toEqual([])
    })

    if (rig.traits.logTimes)
      test('since leaves out what is older', async () => {
        const { id } = await rig.running({ entrypoint: rig.commands.twoLines })
        await rig.ended(id)
        const at = (await chunks(id)).find((c) => text([c]).includes('two'))?.at ?? 0
        expect(text(await chunks(id, { sinceMs: at }))).toBe('two\n')
      })

    test('follow gives what comes and ends with the instance', async () => {
      const { id } = await rig.running({ entrypoint: rig.commands.twoLines })
      const followed = await within('the followed log to end', chunks(id, { follow: true }))
      expect(text(followed)).toBe('one\ntwo\n')
      expect((await rig.ended(id)).exitCode).toBe(0)
    })

    test('follow ends when its reader leaves, and when its call is aborted', async () => {
      const { id } = await rig.running({ entrypoint: rig.commands.ticks })
      const follow = { ...ALL, follow: true }
      for await (const chunk of await rig.engine.logs(id, follow, rig.call()))
        if (chunk.data.length > 0) break
      const abort = new AbortController()
      const read = async (): Promise<void> => {
        for await (const chunk of await rig.engine.logs(id, follow, rig.call({ signal: abort.signal })))
          if (chunk.data.length > 0) abort.abort()
      }
      await within('the aborted log to end', refused(read(), 'aborted'))
    })

    test('the output of execs is not in the log', async () => {
      const { id } = await rig.running()
      await rig.exec(id, rig.commands.say('of an exec', ''))
      expect((await rig.logs(id)).stdout).not.toContain('of an exec')
    })
  })

  describe('stats', () => {
    test('a running instance uses something, and its limit is told where there is one', async () => {
      const memoryBytes = 64 * 1024 * 1024
      const { memoryLimit } = rig.engine.capabilities
      const { id } = await rig.running({ limits: memoryLimit ? { memoryBytes } : {} })
      const stats = await rig.engine.stats(id, rig.call())
      expect(stats.pids).toBeGreaterThanOrEqual(1)
      expect(stats.cpuMs).toBeGreaterThanOrEqual(0)
      expect(stats.memoryBytes).toBeGreaterThan(0)
      if (memoryLimit) expect(stats.memoryLimitBytes).toBe(memoryBytes)
      const later = await rig.engine.stats(id, rig.call())
      expect(later.cpuMs).toBeGreaterThanOrEqual(stats.cpuMs)
      expect(later.at).toBeGreaterThanOrEqual(stats.at)
    })
  })
}
