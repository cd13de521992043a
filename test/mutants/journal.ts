import { type Mutant, quick } from './types.ts'

/** Intent, effect, outcome: what is written when, and what a process that dies leaves behind. */
export const journalMutants: readonly Mutant[] = [
  {
    name: 'intent-after-effect',
    breaks:
      'A step is taken before its intent is committed, so a crash in between leaves what nobody knows of.',
    file: 'src/reconcile/sandbox.ts',
    find: `    const committed = await commit(ctx, key, loaded, decision)
    if (!committed.ok) continue
    tellHooks`,
    replace: `    if (decision.step !== null && engine !== null) {
      const { executeStep } = await import('./steps.ts')
      const { installation } = ctx.store
      const volumes = loaded.volumes.map((v) => decision.changedVolumes.find((c) => c.uid === v.uid) ?? v)
      const input = { engine, installation, endpoint: ctx.endpoint, sandbox: decision.record, volumes, progress: () => undefined }
      await executeStep(decision.step, input, { limitMs: 60_000 }).catch(() => undefined)
    }
    const committed = await commit(ctx, key, loaded, decision)
    if (!committed.ok) continue
    tellHooks`,
    caughtBy: quick('test/quick/crash.test.ts', 'create: a crash at some of its points'),
  },
  {
    name: 'row-closed-on-doubt',
    breaks:
      'A journal row is closed as failed although its effect is unknown, so a call that lands later is nobody’s.',
    file: 'src/reconcile/journal.ts',
    find: `const refused = !result.ok && result.failure.effect === 'none' && !inDoubt`,
    replace: `const refused = !result.ok`,
    caughtBy: quick('test/quick/trouble-late.test.ts', 'a stop that lands after its limit does not undo'),
  },
  {
    name: 'retry-takes-a-new-name',
    breaks: 'A retried create takes a new number, so the late first one and its retry can both exist.',
    file: 'src/plan/create.ts',
    find: `  if (record.instance !== null) {
    const kept`,
    replace: `  if (record.instance !== null && view.open.length === 0) {
    const kept`,
    caughtBy: quick('src/plan/sandbox.test.ts', 'retries an open create under the same name and row'),
  },
  {
    name: 'former-step-retried',
    breaks:
      'A start that is open for an instance that is gone is retried in place of the next one’s, for ever.',
    file: 'src/plan/acts.ts',
    find: `  return 'uid' in step && step.uid === ref?.uid`,
    replace: `  return 'uid' in step && ref !== null`,
    caughtBy: quick(
      'test/quick/trouble-wishes.test.ts',
      'an instance that is removed while its start is in doubt',
    ),
  },
  {
    name: 'late-create-not-noticed',
    breaks:
      'A create within its limit that is not seen counts as not done, so a delete ends before it lands.',
    file: 'src/plan/settle.ts',
    find: `if (row.deadlineAt > now) until = Math.max(until ?? 0, row.deadlineAt)`,
    replace: `if (row.deadlineAt > now + 3_600_000) until = Math.max(until ?? 0, row.deadlineAt)`,
    caughtBy: quick('src/plan/sandbox.test.ts', 'a delete waits for a create whose outcome is unknown'),
  },
  {
    name: 'tombstone-not-written',
    breaks: 'A removed instance leaves no tombstone, so what lands of it later is quarantined for ever.',
    file: 'src/reconcile/sandbox.ts',
    find: `  if (row.step.kind === 'remove-instance' && result.ok) {
    const { uid, name } = row.step`,
    replace: `  if (row.step.kind === 'remove-instance' && !result.ok) {
    const { uid, name } = row.step`,
    caughtBy: quick(
      'test/quick/reconcile.test.ts',
      'removes what has a tombstone, quarantines what nobody knows',
    ),
  },
  {
    name: 'user-stop-in-memory',
    breaks: 'A stop is kept by the process only, so a server that starts anew runs what its user stopped.',
    file: 'src/store/sqlite/core.ts',
    find: `    const epoch = readEpoch(connection) + 1`,
    replace: `    connection.run(\`UPDATE sandboxes SET desired = 'running', doc = json_set(doc, '$.desired', 'running') WHERE desired = 'stopped'\`, [])
    const epoch = readEpoch(connection) + 1`,
    caughtBy: quick('test/quick/crash.test.ts', 'stop: a crash at some of its points'),
  },
  {
    name: 'backoff-in-memory',
    breaks: 'The wait after failures ends with the process, so a server in a crash loop hammers the engine.',
    file: 'src/store/sqlite/core.ts',
    find: `    const epoch = readEpoch(connection) + 1`,
    replace: `    connection.run(\`UPDATE sandboxes SET doc = json_set(doc, '$.backoff', json('null'))\`, [])
    const epoch = readEpoch(connection) + 1`,
    caughtBy: quick('test/quick/trouble-remains.test.ts', 'a wait after failures outlives the process'),
  },
  {
    name: 'breaker-in-memory',
    breaks:
      'The count of restarts and the breaker end with the process, so a crash loop begins anew with each server.',
    file: 'src/store/sqlite/core.ts',
    find: `    const epoch = readEpoch(connection) + 1`,
    replace: `    connection.run(\`UPDATE sandboxes SET doc = json_set(doc, '$.restarts', 0, '$.breaker', json('null'))\`, [])
    const epoch = readEpoch(connection) + 1`,
    caughtBy: quick(
      'test/quick/trouble-remains.test.ts',
      'a crash loop is remembered over a restart of the server',
    ),
  },
  {
    name: 'expiry-by-timer',
    breaks:
      'Only what expires while this process lives is found, so what was due while it was down lives on.',
    file: 'src/reconcile/expiry.ts',
    find: `      mayExpire(reading.mayExpire, await tx.hold()) ? tx.sandboxesExpiredAt(ctx.clock.now()) : [],`,
    replace: `      (await tx.sandboxesExpiredAt(ctx.clock.now())).filter((r) => (r.expiresAt ?? 0) > ctx.clock.now() - 1_500),`,
    caughtBy: quick(
      'test/quick/reconcile.test.ts',
      'expires from the store, also when the time came while the server was down',
    ),
  },
  {
    name: 'compare-and-set-dropped',
    breaks: 'A writer overwrites what another one wrote since it read.',
    file: 'src/store/queries/sandboxes.ts',
    find: `.where('id', '=', id).where('version', '=', record.version)`,
    replace: `.where('id', '=', id)`,
    caughtBy: quick('test/quick/store.test.ts', 'of two writers that read the same version, one wins'),
  },
  {
    name: 'acknowledged-before-it-is-on-disk',
    breaks: 'An intent is answered with 2xx while its commit is only in memory.',
    file: 'src/api/intents/commit.ts',
    find: `deps.store.write(true, async (tx) => {`,
    replace: `deps.store.write(false, async (tx) => {`,
    caughtBy: quick('test/quick/durable.test.ts', 'what the API acknowledges'),
  },
  {
    name: 'journal-not-on-disk',
    breaks: 'An effect is begun while the commit of its intent is only in memory.',
    file: 'src/reconcile/sandbox.ts',
    find: `await ctx.store.write(!onlyStatus, async (tx) => {`,
    replace: `await ctx.store.write(false, async (tx) => {`,
    caughtBy: quick('test/quick/durable.test.ts', 'an intent is on disk before its effect'),
  },
]
