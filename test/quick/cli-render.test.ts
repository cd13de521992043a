import { PassThrough } from 'node:stream'
import fc from 'fast-check'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { ago, bytes, fields, plain, span, table, until, widthOf } from '../../src/cli/render.ts'

const stream = new PassThrough() as unknown as NodeJS.WriteStream

interface Row {
  readonly id: string
  readonly name: string
}

const COLUMNS = [
  { header: 'ID', value: (r: Row) => r.id, style: () => 'red' as const },
  { header: 'NAME', value: (r: Row) => r.name },
  { header: 'MORE', value: (r: Row) => `${r.name}!`, wide: true },
]

afterEach(() => vi.unstubAllEnvs())

describe('tables', () => {
  it('aligns columns for any content, wide characters too', () => {
    const cell = fc.oneof(fc.string(), fc.constantFrom('日本', '🚀 up', 'é', ''))
    fc.assert(
      fc.property(fc.array(fc.record({ id: cell, name: cell }), { minLength: 1 }), (rows) => {
        const lines = table(rows, COLUMNS.slice(0, 2), false, stream).split('\n')
        expect(lines).toHaveLength(rows.length + 1)
        const starts = lines.map((line, i) => {
          const last = i === 0 ? 'NAME' : plain(rows[i - 1]?.name ?? '') || '-'
          expect(line.endsWith(last)).toBe(true)
          return widthOf(line.slice(0, line.length - last.length))
        })
        expect(new Set(starts).size).toBe(1)
      }),
    )
  })

  it('shows wide columns only when asked, and an empty cell as a dash', () => {
    const rows = [{ id: 'a', name: '' }]
    expect(table(rows, COLUMNS, false, stream)).toBe('ID   NAME\na    -')
    expect(table(rows, COLUMNS, true, stream)).toBe('ID   NAME   MORE\na    -      !')
  })

  it('colours when told to, and never under NO_COLOR', () => {
    vi.stubEnv('FORCE_COLOR', '1')
    vi.stubEnv('NO_COLOR', undefined)
    expect(table([{ id: 'a', name: 'b' }], COLUMNS, false, stream)).toContain('\u001b[31ma\u001b[39m    b')
    vi.stubEnv('FORCE_COLOR', undefined)
    vi.stubEnv('NO_COLOR', '1')
    expect(table([{ id: 'a', name: 'b' }], COLUMNS, false, stream)).not.toContain('\u001b')
  })

  it('lets nothing that a sandbox says steer the terminal', () => {
    expect(plain('a\u001b[2Jb\rc\nd\u0007')).toBe('ab c d ')
    // oxlint-disable-next-line no-control-regex -- the characters that must not be there
    const bad = /[\u0000-\u001f\u007f-\u009f]/
    fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => !bad.test(plain(text))))
  })

  it('leaves out fields without a value', () => {
    expect(
      fields([
        ['A', 'x'],
        ['Long', 'y'],
        ['None', null],
      ]),
    ).toBe('A:     x\nLong:  y')
  })
})

describe('times and sizes', () => {
  it.each([
    [0, '0s'],
    [59_400, '59s'],
    [61_000, '1m1s'],
    [3_599_000, '59m'],
    [3_600_000, '1h'],
    [5_400_000, '1h30m'],
    [90_000_000, '1d1h'],
    [864_000_000, '10d'],
    [-5, '0s'],
  ])('%i ms is %s', (ms, text) => expect(span(ms)).toBe(text))

  it('tells ages and expiries', () => {
    const now = Date.parse('2026-01-01T00:00:00Z')
    expect(ago('2025-12-31T23:00:00Z', now)).toBe('1h')
    expect(until('2026-01-01T02:00:00Z', now)).toBe('in 2h')
    expect(until('2025-01-01T02:00:00Z', now)).toBe('now')
    expect(until(null, now)).toBe('never')
  })

  it('tells sizes', () => {
    expect([0, 1023, 1024, 1536, 5 * 1024 ** 3].map((n) => bytes(n))).toEqual([
      '0B',
      '1023B',
      '1Ki',
      '1.5Ki',
      '5Gi',
    ])
    expect(bytes(null)).toBe('-')
  })
})
