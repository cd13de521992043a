import { describe, expect, test } from 'vitest'
import { EngineError } from '../../model/facts.ts'
import { isLoopback, parseEndpoint } from './endpoint.ts'

describe('parseEndpoint', () => {
  test('unix, tcp and ssh', () => {
    expect(parseEndpoint('unix:///run/d.sock', false)).toEqual({ kind: 'unix', path: '/run/d.sock' })
    expect(parseEndpoint('tcp://10.0.0.1', true)).toEqual({ kind: 'tcp', host: '10.0.0.1', port: 2376 })
    expect(parseEndpoint('tcp://[::1]:99/', false)).toEqual({ kind: 'tcp', host: '::1', port: 99 })
    expect(parseEndpoint('ssh://me@box:2222', false)).toEqual({
      kind: 'ssh',
      host: 'box',
      user: 'me',
      port: 2222,
      remoteSocket: '/var/run/docker.sock',
    })
    expect(parseEndpoint('ssh://box/run/user/1000/docker.sock', false)).toMatchObject({
      user: null,
      port: null,
      remoteSocket: '/run/user/1000/docker.sock',
    })
  })

  test.each([
    'unix://relative',
    'box',
    'http://box',
    'tcp://me@box',
    'tcp://box/path',
    'tcp://box?x=1',
    'ssh://me:secret@box',
    'ssh://-oProxyCommand=x',
    'ssh://-oProxyCommand=x@box',
    'ssh:///path',
  ])('%s is refused', (text) => {
    expect(() => parseEndpoint(text, false)).toThrow(EngineError)
  })

  test('loopback', () => {
    expect(['localhost', '127.0.0.1', '127.9.9.9', '::1'].map(isLoopback)).toEqual([true, true, true, true])
    expect(['127.0.0.1.example.org', '10.0.0.1', 'localhost.example.org'].map(isLoopback)).toEqual([
      false,
      false,
      false,
    ])
  })
})
