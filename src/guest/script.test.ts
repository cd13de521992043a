import { describe, expect, it } from 'vitest'
import { checkCommand, jobLine, quote, rawCommand, SCRIPT_MAX_BYTES, shellCanExport } from './script.ts'

describe('command lines', () => {
  it('cuts a script into arguments that the kernel takes, and never inside a character', () => {
    const script = 'x' + '😀'.repeat(40_000)
    const pieces = rawCommand({ script }, true).slice(4)
    expect(pieces.length).toBeGreaterThan(1)
    expect(pieces.join('')).toBe(script)
    for (const piece of pieces) expect(Buffer.from(piece).toString()).toBe(piece)
    for (const piece of pieces) expect(Buffer.byteLength(piece)).toBeLessThan(131_072)
  })

  it('keeps a relative working directory out of reach of CDPATH and of options', () => {
    expect(jobLine('t', { command: ['x'], workingDir: '-dir', stdin: 'none' })).toContain("'./-dir'")
  })

  it('quotes a single quote', () => {
    expect(quote("a'b")).toBe("'a'\\''b'")
  })

  it.each([
    ['a NUL in an argument', { command: ['a', 'b\0'] }, 'command[1]'],
    ['a NUL in a script', { command: { script: '\0' } }, 'command'],
    ['no program', { command: [] }, 'command'],
    ['a NUL in a value', { command: ['a'], env: { A: '\0' } }, 'env.A'],
    ['a name with =', { command: ['a'], env: { 'A=B': '' } }, 'env.A=B'],
    ['a NUL in the directory', { command: ['a'], workingDir: '/\0' }, 'workingDir'],
  ])('refuses %s with the path of the field', (_what, text, path) => {
    expect(() => checkCommand({ stdin: 'none', ...text })).toThrow(
      expect.objectContaining({
        code: 'INVALID_REQUEST',
        details: { issues: [expect.objectContaining({ path })] },
      }) as Error,
    )
  })

  it('refuses a script over one mebibyte, counted in bytes', () => {
    expect(() =>
      checkCommand({ stdin: 'none', command: { script: 'x'.repeat(SCRIPT_MAX_BYTES) } }),
    ).not.toThrow()
    const tooLarge = expect.objectContaining({ code: 'PAYLOAD_TOO_LARGE' }) as Error
    expect(() =>
      checkCommand({ stdin: 'none', command: { script: 'ü'.repeat(SCRIPT_MAX_BYTES / 2 + 1) } }),
    ).toThrow(tooLarge)
    expect(() => checkCommand({ stdin: 'none', command: ['x'], env: { A: 'x'.repeat(300_000) } })).toThrow(
      tooLarge,
    )
  })

  it('knows which names no shell hands on', () => {
    expect(shellCanExport({ A: '', _B1: '', PATH: '' })).toBe(true)
    for (const name of ['a.b', '1A', 'UID', 'BASH_ENV', 'RANDOM', 'PWD', '__hf_d'])
      expect(shellCanExport({ [name]: '' })).toBe(false)
  })
})
