import { describe, expect, test } from 'vitest'
import { EngineError } from '../../model/facts.ts'
import { refusalError, startError, transportError } from './failure.ts'

describe('refusalError', () => {
  test.each([
    [400, 'bad parameter', 'invalid', 'none'],
    [403, 'no', 'denied', 'none'],
    [404, 'No such container: x', 'not-found', 'none'],
    [409, 'Conflict.', 'conflict', 'none'],
    [500, 'OCI runtime create failed', 'failed', 'unknown'],
    [500, 'write /x: no space left on device', 'disk-full', 'unknown'],
    [501, 'not implemented', 'unsupported', 'none'],
    [503, 'starting', 'failed', 'unknown'],
  ] as const)('%i "%s" of a change is %s with effect %s', (status, message, kind, effect) => {
    expect(refusalError('x', { status, message }, true)).toMatchObject({ kind, effect })
  })

  test('an answer that is not the engine’s own proves nothing', () => {
    expect(refusalError('x', { status: 404, message: null }, true)).toMatchObject({
      kind: 'failed',
      effect: 'unknown',
    })
    expect(refusalError('x', { status: 404, message: null }, false)).toMatchObject({
      kind: 'failed',
      effect: 'none',
    })
  })
})

describe('transportError', () => {
  const coded = (code: string): Error => Object.assign(new Error(code), { code })

  test('what was never sent has no effect, a change that was sent may have one', () => {
    expect(transportError('x', coded('ENOENT'), false, true)).toMatchObject({
      kind: 'unreachable',
      effect: 'none',
    })
    expect(transportError('x', coded('ECONNRESET'), true, true)).toMatchObject({
      kind: 'unreachable',
      effect: 'unknown',
    })
    expect(transportError('x', coded('ECONNRESET'), true, false)).toMatchObject({
      kind: 'unreachable',
      effect: 'none',
    })
  })

  test('a socket that may not be used and a certificate that does not fit are refusals', () => {
    expect(transportError('x', coded('EACCES'), false, true).kind).toBe('denied')
    expect(transportError('x', coded('ERR_TLS_CERT_ALTNAME_INVALID'), false, true).kind).toBe('denied')
    expect(transportError('x', coded('DEPTH_ZERO_SELF_SIGNED_CERT'), false, true).kind).toBe('denied')
  })

  test('an error of ours keeps its kind and learns what was sent', () => {
    const late = transportError('x', new EngineError('timeout', 'none', 'late'), true, true)
    expect(late).toMatchObject({ kind: 'timeout', effect: 'unknown' })
  })
})

describe('startError', () => {
  const of = (status: number, message: string): EngineError =>
    startError({ status, message }, refusalError('starting instance x', { status, message }, true))

  test.each([
    'task cdb8fb9266a3676a0633141405274960dc434fadc2db83164238a9e5c20fbb19: already exists',
    'id already in use',
    'failed to create task for container: failed to start shim: mkdir /run/containerd/x: file exists',
  ])('%s is a leftover that keeps the instance from starting', (message) => {
    expect(of(500, message)).toMatchObject({ kind: 'wedged', effect: 'none' })
    expect(of(500, message).message).toMatch(/volumes are untouched.*recover/)
  })

  test('other refusals stay what they are', () => {
    expect(of(500, 'OCI runtime create failed: mkdir /data: file exists')).toMatchObject({ kind: 'failed' })
    expect(of(404, 'No such container: x')).toMatchObject({ kind: 'not-found' })
  })
})
