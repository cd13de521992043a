import { describe, expect, it } from 'vitest'
import { possibleActions, type Action } from './actions.ts'
import type { Desired, Phase } from './records.ts'

const possible = (desired: Desired, phase: Phase, deletedAt: number | null = null): readonly Action[] =>
  possibleActions({
    desired,
    deletedAt,
    status: { phase, reason: '', message: '', difference: '', next: '', nextAt: null },
  })

const PHASES: readonly Phase[] = [
  'Pending',
  'Running',
  'Pausing',
  'Paused',
  'Resuming',
  'Stopping',
  'Terminated',
  'Failed',
  'Stopped',
  'Starting',
  'Lost',
  'Blocked',
  'Unknown',
]

describe('possibleActions', () => {
  it('nothing is possible once it is deleted or being deleted', () => {
    for (const phase of PHASES) {
      expect(possible('deleted', phase)).toEqual([])
      expect(possible('stopped', phase, 1)).toEqual([])
    }
  })

  it('every other state has a way on: start, stop and delete', () => {
    for (const desired of ['running', 'paused', 'stopped'] as const) {
      for (const phase of PHASES) {
        expect([desired, phase, possible(desired, phase)]).toEqual([
          desired,
          phase,
          expect.arrayContaining([
            'start',
            'resume',
            'stop',
            'restart',
            desired === 'paused' ? 'pause' : 'update',
            'renew',
            'delete',
          ]),
        ])
      }
    }
  })

  it('start and recover work from Failed, Lost and Blocked, whatever is wanted', () => {
    for (const desired of ['running', 'paused', 'stopped'] as const) {
      for (const phase of ['Failed', 'Lost', 'Blocked'] as const)
        expect(possible(desired, phase)).toContain('recover')
    }
    expect(possible('stopped', 'Stopped')).not.toContain('recover')
  })

  it('a wish may be repeated after a lost answer, in the state that the first one made', () => {
    expect(possible('running', 'Starting')).toContain('recover')
    expect(possible('running', 'Resuming')).toContain('resume')
    expect(possible('paused', 'Pausing')).toContain('pause')
    expect(possible('stopped', 'Stopping')).toContain('stop')
  })

  it('only what runs can be paused or worked in', () => {
    for (const phase of PHASES) {
      expect([phase, possible('running', phase).includes('exec')]).toEqual([phase, phase === 'Running'])
      const pausable = ['Running', 'Pausing', 'Resuming'].includes(phase)
      expect([phase, possible('running', phase).includes('pause')]).toEqual([phase, pausable])
      expect(possible('stopped', phase)).not.toContain('pause')
    }
  })
})
