import { expect, it } from 'vitest'
import { facts, INSTALLATION } from '../../test/support/plan.ts'
import { judge } from './sweep.ts'

const none = { row: false, tombstone: false }

it.each([
  ['a row knows it', facts(), { row: true, tombstone: false }, 'known'],
  ['its delete was finished', facts(), { row: false, tombstone: true }, 'remnant'],
  ['nobody knows its uid', facts(), none, 'quarantine'],
  ['another installation', facts({ labels: { 'holdfast.dev/installation': 'other' } }), none, 'not-ours'],
  [
    'labels copied by a commit: another name',
    facts({ name: 'users-own' }),
    { row: false, tombstone: true },
    'not-ours',
  ],
  ['no labels at all', facts({ labels: {} }), { row: false, tombstone: true }, 'not-ours'],
])('%s', (_name, object, known, kind) => {
  expect(judge(object, INSTALLATION, () => known, null).kind).toBe(kind)
})
