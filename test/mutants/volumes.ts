import { engines, type Mutant, quick } from './types.ts'

/** Data: when it may go, and what nothing may be started on. */
export const volumeMutants: readonly Mutant[] = [
  {
    name: 'volumes-go-with-the-instance',
    breaks: 'Whoever removes an instance removes its volumes too, as `rm -v` does.',
    file: 'src/reconcile/steps.ts',
    find: `    await input.engine.removeInstance(step.engineId, call)
    return { text: 'removed' }`,
    replace: `    await input.engine.removeInstance(step.engineId, call)
    for (const m of facts.mounts) if (m.volume !== null) await input.engine.removeVolume(m.volume, call)
    return { text: 'removed' }`,
    caughtBy: quick('test/quick/reconcile.test.ts', 'an update makes a new instance on the same volume'),
  },
  {
    name: 'retained-removed-on-delete',
    breaks: 'A volume with retention `retain` goes with the sandbox that it was made for.',
    file: 'src/plan/volume.ts',
    find: `  if (d.record.owner === null || d.record.retention !== 'delete') return false`,
    replace: `  if (d.record.owner === null) return false`,
    caughtBy: quick('src/plan/volume.test.ts', 'the one removal rule'),
  },
  {
    name: 'removed-under-an-instance',
    breaks: 'A volume goes although an instance of its owner may still be there.',
    file: 'src/plan/volume.ts',
    find: `    if (d.record.purge === null && !ownerIsAbsent(d))`,
    replace: `    if (d.record.purge !== null && !ownerIsAbsent(d))`,
    caughtBy: quick('src/plan/volume.test.ts', 'the one removal rule'),
  },
  {
    name: 'purge-ignores-holders',
    breaks: 'The purge of a volume that a sandbox mounts is recorded instead of refused.',
    file: 'src/api/intents/volumes.ts',
    find: `    if (holders.length > 0) throw fail('VOLUME::IN_USE', { claim: row.claim, holders })`,
    replace: ``,
    caughtBy: quick(
      'test/quick/api-volumes.test.ts',
      'a purge is recorded with its consent; of a mounted one it is refused',
    ),
  },
  {
    name: 'mount-check-outside-the-commit',
    breaks: 'A sandbox that claims a volume between the check and the removal finds it gone.',
    file: 'src/reconcile/volume.ts',
    find: `        if (others.length > 0) throw new Conflict()`,
    replace: `        if (others.length > 1_000) throw new Conflict()`,
    caughtBy: quick('test/quick/trouble-remains.test.ts', 'a volume of somebody else that gets a new holder'),
  },
  {
    name: 'foreign-volume-removed',
    breaks: 'A volume that is not ours is treated by the rule for ours.',
    file: 'src/plan/volume.ts',
    find: `  if (!view.record.managed) return planUnmanaged(d, facts)`,
    replace: ``,
    caughtBy: quick('src/plan/volume.test.ts', 'an unmanaged volume is never made or removed'),
  },
  {
    name: 'labels-not-checked-before-removal',
    breaks: 'A volume goes by its name alone, although the object under it no longer carries our labels.',
    file: 'src/reconcile/steps.ts',
    find: `    if (!ours && !(await isSilent(step, input, call))) {`,
    replace: `    if (!ours && step.name === '') {`,
    caughtBy: quick('test/quick/steps.test.ts', 'a volume is removed only while it carries our labels'),
  },
  {
    name: 'silent-volume-with-data-removed',
    breaks: 'An unlabelled volume under our name goes although there is data in it.',
    file: 'src/plan/volume.ts',
    find: `  return d.view.empty.has(facts.name) ? removal(d, facts.name, SILENT) : null`,
    replace: `  return removal(d, facts.name, SILENT)`,
    caughtBy: quick(
      'src/plan/volume.test.ts',
      'one that the engine made silently goes, if it is unlabelled, newer and empty',
    ),
  },
  {
    name: 'start-on-a-missing-volume',
    breaks: 'An instance is made although its volume is gone, so the engine makes an empty one silently.',
    file: 'src/plan/create.ts',
    find: `    if (row.state === 'ready' && isMissing(view, row)) {`,
    replace: `    if (row.state !== 'ready' && isMissing(view, row)) {`,
    caughtBy: quick(
      'src/plan/sandbox.test.ts',
      'does not make an instance on a volume that the engine no longer has',
    ),
  },
  {
    name: 'mounts-not-checked-before-start',
    breaks: 'An instance is started on a volume that the engine made silently between create and start.',
    file: 'src/plan/ends.ts',
    find: `  if (fault !== null) {
    if (fault.gone`,
    replace: `  if (fault !== null && facts.mounts.length === 0) {
    if (fault.gone`,
    caughtBy: quick(
      'src/plan/sandbox.test.ts',
      'removes an instance that mounts another volume than journaled',
    ),
  },
  {
    name: 'seeded-again',
    breaks: 'A workspace is filled from the image at each new instance, over what its user made of it.',
    file: 'src/reconcile/steps.ts',
    find: `      seed: row.seed === 'seeding',`,
    replace: `      seed: row.kind !== 'claim',`,
    caughtBy: quick(
      'test/quick/reconcile.test.ts',
      'a workspace is seeded once, whatever its user made of it',
    ),
  },
  {
    name: 'seeded-when-empty',
    breaks: 'A workspace that its user emptied is filled again, because emptiness and not its row decides.',
    file: 'src/plan/create.ts',
    find: `    if (row?.seed === 'pending') draft.changedVolumes.set(row.uid, { ...row, seed: 'seeding' })`,
    replace: `    if (row?.seed === 'pending' || row?.seed === 'seeded') draft.changedVolumes.set(row.uid, { ...row, seed: 'seeding' })`,
    caughtBy: quick(
      'test/quick/reconcile.test.ts',
      'a workspace is seeded once, whatever its user made of it',
    ),
  },
  {
    name: 'anonymous-volumes-of-what-ran-removed',
    breaks: 'Docker is told to remove volumes with every instance, also with one that ran.',
    file: 'src/engines/docker-api/instances.ts',
    find: `query: { force: true, v: neverRan }`,
    replace: `query: { force: true, v: true }`,
    caughtBy: engines(
      'test/engines/docker-create.test.ts',
      'a volume without a name goes with an instance that never ran, and stays after one that did',
    ),
  },
]
