import { type Mutant, quick } from './types.ts'

/** Exits, wishes, and what is told of them. */
export const lifeMutants: readonly Mutant[] = [
  {
    name: 'engine-stop-read-as-crash',
    breaks:
      'An exit that came with the engine’s own stop counts as the workload’s, so what was wanted running stays down.',
    file: 'src/plan/exit.ts',
    find: `  if (!sameRun(ref.run, facts.run)) return { kind: 'new', exit: exit('engine') }`,
    replace: ``,
    caughtBy: quick('src/plan/sandbox.test.ts', 'under another engine run: started again'),
  },
  {
    name: 'exit-judged-at-once',
    breaks:
      'An exit is judged before the same engine run answered again, so an orderly stop of the engine looks like the workload’s end.',
    file: 'src/plan/exit.ts',
    find: `  if (known === null || now - seenAt < EXIT_SETTLE_MS) {`,
    replace: `  if (now - seenAt < 0) {`,
    caughtBy: quick('src/plan/sandbox.test.ts', 'under the same run is provisional first'),
  },
  {
    name: 'late-stop-undoes-a-start',
    breaks:
      'A stop that lands after it was given up counts as somebody else’s, and ends what was started since.',
    file: 'src/plan/exit.ts',
    find: `  if (stopInDoubt) return { kind: 'new', exit: exit('asked') }`,
    replace: ``,
    caughtBy: quick('test/quick/trouble-late.test.ts', 'a stop that lands after its limit does not undo'),
  },
  {
    name: 'acknowledged-start-forgotten',
    breaks: 'A start that was acknowledged while the end was not seen yet is undone by that end.',
    file: 'src/plan/ends.ts',
    find: `  return draft.record.desiredAt >= finishedAt || finishedAt > now`,
    replace: `  return finishedAt > now`,
    caughtBy: quick(
      'test/quick/trouble-wishes.test.ts',
      'a start that was acknowledged while the end was not seen yet',
    ),
  },
  {
    name: 'generation-claimed-too-early',
    breaks: 'An update of a paused sandbox is told as applied although the old instance is still there.',
    file: 'src/plan/held.ts',
    find: `    observedGeneration: isDrift(facts.labels[LABEL.specHash] ?? '', draft.record.specHash)
      ? draft.record.observedGeneration
      : draft.record.generation,`,
    replace: `    observedGeneration: draft.record.generation,`,
    caughtBy: quick(
      'test/quick/trouble-wishes.test.ts',
      'an update of a paused one is not claimed to be applied',
    ),
  },
  {
    name: 'unknown-hash-is-drift',
    breaks: 'An instance of another version’s hash is replaced, so an upgrade restarts everything.',
    file: 'src/model/spec.ts',
    find: `  return have !== want && have.startsWith('v1-') && want.startsWith('v1-')`,
    replace: `  return have !== want`,
    caughtBy: quick('src/plan/sandbox.test.ts', 'an unknown hash version is no drift'),
  },
  {
    name: 'lost-is-replaced-unasked',
    breaks: 'An instance that is gone is replaced although neither its user nor its policy said so.',
    file: 'src/plan/sandbox.ts',
    find: `  if (gone && (asked || record.restartPolicy.kind === 'always')) {`,
    replace: `  if (gone) {`,
    caughtBy: quick(
      'test/quick/reconcile.test.ts',
      'an instance removed behind its back: Lost, then recover on the same volume',
    ),
  },
  {
    name: 'lane-reused-after-loss',
    breaks: 'A lane of an earlier start of the instance serves the commands of the next one.',
    file: 'src/guest/index.ts',
    find: '    const key = `${engine.id}/${engineId}/${target.startedAt}`',
    replace: '    const key = `${engine.id}/${engineId}`',
    caughtBy: quick('test/quick/guest-pool.test.ts', 'never uses a lane of an earlier start'),
  },
]
