import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { changeOf } from '../../src/cli/commands/update.ts'
import { expiryOf } from '../../src/cli/commands/renew.ts'
import {
  parseCpu,
  parseDuration,
  parseEnv,
  parseMount,
  parsePairs,
  parsePort,
  parseRestartPolicy,
  parseSince,
  parseSize,
  UsageError,
} from '../../src/cli/parse.ts'
import { createBody } from '../../src/cli/spec.ts'

describe('values on the command line', () => {
  it.each([
    ['90', 90_000],
    ['0', 0],
    ['1.5', 1500],
    ['250ms', 250],
    ['90s', 90_000],
    ['5m', 300_000],
    ['1h30m', 5_400_000],
    ['2d', 172_800_000],
    ['1m500ms', 60_500],
  ])('reads %s as a duration', (text, ms) => expect(parseDuration(text)).toBe(ms))

  it.each(['', '-5', '5x', 'm', '5 m', '1e3', '5m3'])('refuses %j as a duration', (text) =>
    expect(() => parseDuration(text)).toThrow(UsageError),
  )

  it.each([
    ['512Mi', '512Mi'],
    ['2Gi', '2Gi'],
    ['1G', '1G'],
    ['1GiB', '1Gi'],
    ['64K', '64k'],
    ['64ki', '64Ki'],
    ['1048576', '1048576'],
  ])('reads %s as the size %s', (text, wire) => expect(parseSize(text)).toBe(wire))

  it.each(['', 'much', '-1Gi', '1 Gi', '5Zi'])('refuses %j as a size', (text) =>
    expect(() => parseSize(text)).toThrow(UsageError),
  )

  it('reads cores, ports and policies, and refuses what is none', () => {
    expect(['2', '0.5', '500m'].map(parseCpu)).toEqual(['2', '0.5', '500m'])
    expect(() => parseCpu('all')).toThrow(UsageError)
    expect(parsePort('8000')).toBe(8000)
    for (const text of ['0', '65536', 'http', '-1', '80.5']) expect(() => parsePort(text)).toThrow(UsageError)
    expect(['no', 'always', 'on-failure', 'on-failure:3'].map(parseRestartPolicy)).toHaveLength(4)
    for (const text of ['yes', 'on-failure:', 'on-failure:0', 'always:2']) {
      expect(() => parseRestartPolicy(text)).toThrow(UsageError)
    }
  })

  it('keeps any environment value as it is, and takes a bare name from here', () => {
    fc.assert(
      fc.property(fc.string(), (value) => {
        expect(parseEnv([`A=${value}`], {})).toEqual({ A: value })
      }),
    )
    expect(parseEnv(['HOME', 'X='], { HOME: '/root' })).toEqual({ HOME: '/root', X: '' })
    expect(() => parseEnv(['MISSING'], {})).toThrow('not set here')
    expect(() => parseEnv(['1A=x'], {})).toThrow(UsageError)
    expect(() => parsePairs(['=x'], 'label')).toThrow(UsageError)
  })

  it('tells claims from host paths in a mount', () => {
    expect(parseMount('site:/srv', 1)).toEqual({ name: 'v1', pvc: { claimName: 'site' }, mountPath: '/srv' })
    expect(parseMount('/data:/srv:ro', 2)).toEqual({
      name: 'v2',
      host: { path: '/data' },
      mountPath: '/srv',
      readOnly: true,
    })
    for (const text of ['site', 'site:srv', ':/srv', 'site:/srv:rx', 'a:/b:ro:c']) {
      expect(() => parseMount(text, 1)).toThrow(UsageError)
    }
  })

  it('reads since as a duration ago or a time', () => {
    const now = Date.parse('2026-01-01T00:10:00Z')
    expect(parseSince('10m', now)).toBe('2026-01-01T00:00:00.000Z')
    expect(parseSince('2025-12-31T00:00:00Z', now)).toBe('2025-12-31T00:00:00.000Z')
    expect(() => parseSince('2025-99-99', now)).toThrow(UsageError)
  })
})

describe('bodies', () => {
  it('builds a create from its options', () => {
    const body = createBody(
      'busybox',
      ['--', 'sleep', '5'],
      {
        workspace: false,
        name: 'web',
        env: ['A=1'],
        volume: ['site:/srv', '/h:/h'],
        label: ['t=x'],
        memory: '1Gi',
        pids: 9,
        expires: 90_500,
        deleteVolumes: true,
      },
      {},
    )
    expect(body).toEqual({
      image: { uri: 'busybox' },
      entrypoint: ['sleep', '5'],
      name: 'web',
      env: { A: '1' },
      metadata: { t: 'x' },
      resourceLimits: { memory: '1Gi', pids: '9' },
      timeout: 91,
      workspace: false,
      volumes: [
        { name: 'v1', pvc: { claimName: 'site', deleteOnSandboxTermination: true }, mountPath: '/srv' },
        { name: 'v2', host: { path: '/h' }, mountPath: '/h' },
      ],
    })
    expect(() => createBody('busybox', [], { workspace: true, expires: 5000 }, {})).toThrow('60s')
  })

  it('builds an update from what was given, and refuses an empty one', () => {
    expect(changeOf([], { env: ['A=1'], unsetEnv: ['B'], image: 'x' }, {})).toEqual({
      image: { uri: 'x' },
      env: { A: '1', B: null },
    })
    expect(() => changeOf([], {}, {})).toThrow('Nothing to change')
  })

  it('renews for a while or until a time, never both or neither', () => {
    expect(expiryOf({ for: 60_000 }, 0)).toBe('1970-01-01T00:01:00.000Z')
    expect(() => expiryOf({}, 0)).toThrow(UsageError)
    expect(() => expiryOf({ for: 1, until: '2026-01-01T00:00:00.000Z' }, 0)).toThrow(UsageError)
  })
})
