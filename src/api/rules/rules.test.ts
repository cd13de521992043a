import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { hostAllowed, hostName, parseAddress } from '../address.ts'
import { readTarget, takeToken } from '../proxy/target.ts'
import { mergeMetadata, metadataIssues } from './metadata.ts'
import { hostPathAllowed, mountPath } from './paths.ts'
import { limitsText, parseBytes, parseCpu, parseLimits } from './quantity.ts'
import { parseRestartPolicy, restartPolicyText } from './restart.ts'

describe('quantities', () => {
  it.each([
    ['512Mi', 512 * 2 ** 20],
    ['1Gi', 2 ** 30],
    ['1.5Gi', 1.5 * 2 ** 30],
    ['1G', 1e9],
    ['1048576', 1_048_576],
    ['0', null],
    ['-1', null],
    ['1gi', null],
    ['', null],
    ['1e9', null],
    ['9999999Ti', null],
  ])('bytes of %s', (text, bytes) => expect(parseBytes(text)).toBe(bytes))

  it.each([
    ['500m', 500],
    ['1', 1000],
    ['0.5', 500],
    ['2.25', 2250],
    ['0', null],
    ['m', null],
    ['1 ', null],
    ['0.0001', null],
  ])('cpu %s', (text, millis) => expect(parseCpu(text)).toBe(millis))

  it('what is written can be read again', () => {
    const limits = fc.record(
      {
        cpuMillis: fc.integer({ min: 10, max: 512_000 }),
        memoryBytes: fc.integer({ min: 6 * 2 ** 20, max: 2 ** 42 }),
        pids: fc.integer({ min: 1, max: 1e6 }),
      },
      { requiredKeys: [] },
    )
    fc.assert(
      fc.property(limits, (want) => {
        expect(parseLimits(limitsText(want), [])).toEqual({ ...want })
      }),
    )
  })
})

describe('restart policies', () => {
  it.each(['no', 'always', 'on-failure', 'on-failure:3'])('%s', (text) =>
    expect(restartPolicyText(parseRestartPolicy(text))).toBe(text),
  )
})

describe('metadata', () => {
  it.each([
    ['a', ''],
    ['app.kubernetes.io/name', 'x.Y_z-1'],
    ['a'.repeat(63), 'b'.repeat(63)],
    ['notopensandbox.io/x', 'y'],
  ])('takes %s=%s', (key, value) => expect(metadataIssues({ [key]: value }, 'metadata')).toEqual([]))

  it.each([
    ['', 'x'],
    ['a'.repeat(64), 'x'],
    ['a', 'b'.repeat(64)],
    ['a/b/c', 'x'],
    ['-a', 'x'],
    ['A.b/x', 'x'],
    ['opensandbox.io/x', 'x'],
    ['sub.holdfast.dev/x', 'x'],
    ['a', '-'],
  ])('refuses %s=%s', (key, value) =>
    expect(metadataIssues({ [key]: value }, 'metadata').length).toBeGreaterThan(0),
  )

  it('merges by RFC 7396', () =>
    expect(mergeMetadata({ a: '1', b: '2' }, { a: null, c: '3', d: null })).toEqual({ b: '2', c: '3' }))
})

describe('paths', () => {
  it.each([
    ['/data', '/data'],
    ['/data//x/', '/data/x'],
    ['/data/./x', '/data/x'],
    ['/dev/shm', '/dev/shm'],
  ])('mount %s', (text, path) => expect(mountPath(text)).toEqual({ path }))

  it.each(['', 'data', '/', '/.', '/a/..', '/proc', '/proc/self', '/sys/fs', '/dev', '/a:b', '/a,b', '/a\0'])(
    'no mount %j',
    (text) => expect(mountPath(text)).toHaveProperty('problem'),
  )

  it('host paths only under a prefix, by whole names', () => {
    const prefixes = ['/srv/data/', '/opt']
    for (const path of ['/srv/data', '/srv/data/x', '/srv//data/x/', '/opt/a'])
      expect([path, hostPathAllowed(path, prefixes)]).toEqual([path, true])
    for (const path of [
      '/srv',
      '/srv/database',
      '/srv/data/../x',
      'srv/data',
      '/',
      '/optional',
      '/srv/data/\0',
    ]) {
      expect([path, hostPathAllowed(path, prefixes)]).toEqual([path, false])
    }
    expect(hostPathAllowed('/anything', [])).toBe(false)
    expect(hostPathAllowed('/anything', [''])).toBe(false)
    expect(hostPathAllowed('/anything', ['/'])).toBe(true)
  })

  it('nothing with .. is ever allowed', () => {
    const part = fc.constantFrom('..', '.', 'a', 'srv', 'data', '')
    fc.assert(
      fc.property(fc.array(part, { maxLength: 8 }), (parts) => {
        const path = `/${parts.join('/')}`
        if (hostPathAllowed(path, ['/srv/data'])) expect(parts).not.toContain('..')
      }),
    )
  })
})

describe('addresses', () => {
  it.each([
    ['127.0.0.1:8080', { host: '127.0.0.1', port: 8080 }],
    ['[::1]:0', { host: '::1', port: 0 }],
    [':80', { host: '127.0.0.1', port: 80 }],
    ['localhost:1', { host: 'localhost', port: 1 }],
    ['8080', null],
    ['a:70000', null],
    ['::1:80', null],
  ])('%s', (text, want) => expect(parseAddress(text)).toEqual(want))

  it('names of hosts', () => {
    expect(hostName('A.Example.:80')).toBe('a.example')
    expect(hostName('[::1]:80')).toBe('::1')
    for (const bad of [undefined, '', 'a b', 'a:b', 'a@b', 'a/b', '[::1']) expect(hostName(bad)).toBeNull()
    expect(hostAllowed('10.0.0.1', { host: '127.0.0.1', port: 1 }, [])).toBe(false)
    expect(hostAllowed('10.0.0.1', { host: '10.0.0.1', port: 1 }, [])).toBe(true)
  })
})

describe('targets of the proxy', () => {
  it.each([
    ['s1-80.localhost:81', '/x?y', { form: 'host', sandbox: 's1', port: 80, path: '/x?y' }],
    ['S1-80.LOCALHOST', '/', { form: 'host', sandbox: 's1', port: 80, path: '/' }],
    [
      '127.0.0.1',
      '/v1/sandboxes/s1/proxy/80/a//b?c',
      { form: 'path', sandbox: 's1', port: 80, path: '/a//b?c' },
    ],
    ['127.0.0.1', '/sandboxes/s1/proxy/80?c', { form: 'path', sandbox: 's1', port: 80, path: '/?c' }],
    ['s1-0.localhost', '/', null],
    ['s1-99999.localhost', '/', null],
    ['s1.localhost', '/sandboxes/s1/proxy/80/', null],
    ['a.s1-80.localhost', '/', null],
    ['s1-80.localhost', 'http://other/', null],
    ['127.0.0.1', '/sandboxes/S1/proxy/80/', null],
    ['127.0.0.1', '/sandboxes/s1/proxy/80x/', null],
    ['127.0.0.1', '*', null],
  ])('%s %s', (host, url, want) => expect(readTarget(host, url, 'localhost')).toEqual(want))

  it('a configured wildcard domain', () => {
    expect(readTarget('s1-80.boxes.example', '/', 'boxes.example')).toMatchObject({
      form: 'host',
      sandbox: 's1',
    })
    expect(readTarget('s1-80.localhost', '/', 'boxes.example')).toBeNull()
  })

  it('tokens', () => {
    expect(takeToken('/a?b=1&holdfast-token=t&c')).toEqual({ token: 't', rest: '/a?b=1&c' })
    expect(takeToken('/?holdfast-token=t')).toEqual({ token: 't', rest: '/' })
    expect(takeToken('/?other-holdfast-token=t')).toBeNull()
    expect(takeToken('/')).toBeNull()
  })
})
