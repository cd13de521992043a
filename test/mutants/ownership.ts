import { engines, type Mutant, quick } from './types.ts'

/** What is ours, what is known, and what a look that failed says: nothing. */
export const ownershipMutants: readonly Mutant[] = [
  {
    name: 'remove-by-name',
    breaks: 'An instance is looked at and removed by its name, which somebody else’s may have by now.',
    file: 'src/reconcile/steps.ts',
    find: `    const facts = await input.engine.inspectInstance(step.engineId, call)
    if (facts === null) return { text: 'was gone' }
    if (
      facts.id !== step.engineId ||
      !isExactly(facts, { installation: input.installation, name: step.name, uid: step.uid })
    ) {`,
    replace: `    const facts = await input.engine.inspectInstance(step.name, call)
    if (facts === null) return { text: 'was gone' }
    step = { ...step, engineId: facts.id }
    if (!isExactly(facts, { installation: input.installation, name: step.name, uid: step.uid })) {`,
    caughtBy: quick('test/quick/steps.test.ts', 'a removal goes by the engine’s id'),
  },
  {
    name: 'uid-check-dropped',
    breaks: 'An object under our name and installation counts as ours whatever its uid.',
    file: 'src/model/labels.ts',
    find: `    ownership(object, want.installation) === 'ours' &&
    object.labels[LABEL.uid] === want.uid`,
    replace: `    ownership(object, want.installation) === 'ours'`,
    caughtBy: quick('test/quick/steps.test.ts', 'nothing is removed whose uid is another one'),
  },
  {
    name: 'installation-ignored',
    breaks: 'What another installation made counts as ours.',
    file: 'src/model/labels.ts',
    find: `  if (object.labels[LABEL.installation] !== installation) return 'foreign'`,
    replace: `  if (object.labels[LABEL.installation] === undefined && installation !== '') return 'foreign'`,
    caughtBy: quick('src/api/audit.test.ts', 'leaves alone what is another installation’s'),
  },
  {
    name: 'copied-labels-claimed',
    breaks:
      'A container that a user made from a committed image counts as ours, because the labels came along.',
    file: 'src/model/labels.ts',
    find: `  if (object.labels[LABEL.name] !== nameLabel(object.name)) return 'copied'`,
    replace: ``,
    caughtBy: quick(
      'test/quick/reconcile.test.ts',
      'removes what has a tombstone, quarantines what nobody knows',
    ),
  },
  {
    name: 'quarantined-removed',
    breaks: 'What carries our installation and no row knows is removed without a person.',
    file: 'src/plan/sweep.ts',
    find: `return k.tombstone && mayRemove(hold) ? { kind: 'remnant' } : { kind: 'quarantine' }`,
    replace: `return { kind: 'remnant' }`,
    caughtBy: quick(
      'test/quick/reconcile.test.ts',
      'removes what has a tombstone, quarantines what nobody knows',
    ),
  },
  {
    name: 'sweep-after-a-failed-list',
    breaks: 'A list that failed counts as an empty one.',
    file: 'src/reconcile/sweep.ts',
    find: `    ctx.suspect(engine.id, error instanceof Error ? error.message : String(error))
    return false
  }
  const rows`,
    replace: `    ctx.suspect(engine.id, error instanceof Error ? error.message : String(error))
    instances = []
    volumes = []
  }
  const rows`,
    caughtBy: quick('test/quick/trouble-remains.test.ts', 'a list that failed settles nothing'),
  },
  {
    name: 'half-a-list-taken-as-whole',
    breaks: 'The instances were listed and the volumes were not, and that counts as there being none.',
    file: 'src/reconcile/sweep.ts',
    find: `    volumes = await engine.listVolumes({ limitMs: LIST_LIMIT_MS })`,
    replace: `    volumes = await engine.listVolumes({ limitMs: LIST_LIMIT_MS }).catch(() => [])`,
    caughtBy: quick('test/quick/trouble-remains.test.ts', 'a list that failed settles nothing'),
  },
  {
    name: 'partial-list-taken-as-whole',
    breaks: 'An instance that could not be looked at is left out of the list, as if it were gone.',
    file: 'src/engines/docker-api/instances.ts',
    find: `        return mapBounded(rows, LIST_WIDTH, (row) => lookSoon(row.Id, rest()))`,
    replace: `        return mapBounded(rows, LIST_WIDTH, (row) => lookSoon(row.Id, rest()).catch(() => null))`,
    caughtBy: engines('test/engines/docker-transport.test.ts', 'a list in which one look fails is no list'),
  },
  {
    name: 'error-read-as-absent',
    breaks: 'An engine that could not be asked counts as one that has nothing.',
    file: 'src/reconcile/sandbox.ts',
    find: `    return { known: true, value: { instance, volumes }, at: ctx.clock.now() }
  } catch (error) {
    return doubt(ctx, record.engine, error)
  }`,
    replace: `    return { known: true, value: { instance, volumes }, at: ctx.clock.now() }
  } catch {
    return { known: true, value: { instance: null, volumes: new Map() }, at: ctx.clock.now() }
  }`,
    caughtBy: quick(
      'test/quick/reconcile.test.ts',
      'an engine that is away: Unknown, and nothing is changed',
    ),
  },
  {
    name: 'swallowed-remove-error',
    breaks: 'A removal that failed counts as done, so a delete is finished while the instance lives.',
    file: 'src/reconcile/steps.ts',
    find: `    await input.engine.removeInstance(step.engineId, call)
    return { text: 'removed' }`,
    replace: `    await input.engine.removeInstance(step.engineId, call).catch(() => undefined)
    return { text: 'removed' }`,
    caughtBy: quick('test/quick/trouble-remains.test.ts', 'a delete whose removal fails is not finished'),
  },
  {
    name: 'renamed-is-absent',
    breaks: 'An instance that somebody renamed counts as gone, and a second one is made on its volume.',
    file: 'src/plan/sandbox.ts',
    find: `  if (ref === null || facts === null || facts.id !== ref.engineId || facts.name === ref.name) return null`,
    replace: `  if (ref === null || facts === null || facts.id === ref.engineId || facts.name === ref.name) return null`,
    caughtBy: quick(
      'test/quick/trouble-remains.test.ts',
      'an instance that somebody renamed is neither touched nor doubled',
    ),
  },
]
