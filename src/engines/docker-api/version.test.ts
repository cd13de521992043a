import { expect, test } from 'vitest'
import { EngineError } from '../../model/facts.ts'
import { chooseVersion, compareVersions } from './version.ts'

const known = { min: '1.40', max: '1.50' }
const choose = (api: string, min?: string): string =>
  chooseVersion(
    { Version: 'x', ApiVersion: api, ...(min === undefined ? {} : { MinAPIVersion: min }) },
    known,
    'here',
  ).api

test('versions are compared by number, not by text', () => {
  expect(compareVersions('1.9', '1.41')).toBeLessThan(0)
  expect(compareVersions('1.41', '1.41')).toBe(0)
  expect(compareVersions('2.0', '1.99')).toBeGreaterThan(0)
})

test('the newest that both speak', () => {
  expect(choose('1.41', '1.12')).toBe('1.41')
  expect(choose('1.52', '1.44')).toBe('1.50')
  expect(choose('1.40')).toBe('1.40')
})

test('no overlap is an error that names both ranges', () => {
  expect(() => choose('1.39', '1.12')).toThrow(/1\.12 to 1\.39.*1\.40 to 1\.50/)
  expect(() => choose('1.60', '1.51')).toThrow(EngineError)
})

test('what tells no version is no engine', () => {
  expect(() => chooseVersion({}, known, 'here')).toThrow(/no container engine/)
  expect(() => chooseVersion(null, known, 'here')).toThrow(EngineError)
})
