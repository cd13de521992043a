import { type Mutant, quick } from './types.ts'

/** One writer: the lock, the epoch, and the fence before each call. */
export const fencingMutants: readonly Mutant[] = [
  {
    name: 'epoch-check-dropped',
    breaks: 'A control plane that was replaced goes on committing.',
    file: 'src/store/sqlite/core.ts',
    find: `check: assertEpoch }`,
    replace: `check: () => undefined }`,
    caughtBy: quick('test/quick/store-files.test.ts', 'the epoch is checked inside the transaction'),
  },
  {
    name: 'lock-not-taken',
    breaks: 'Two servers open one state directory.',
    file: 'src/store/sqlite/lock.ts',
    find: `    handle.exec('BEGIN EXCLUSIVE')`,
    replace: `    handle.exec('BEGIN')`,
    caughtBy: quick('test/quick/store-files.test.ts', 'a second process is refused, the holder is named'),
  },
  {
    name: 'fence-not-asserted',
    breaks: 'A control plane that was replaced between its commit and its call still changes the engine.',
    file: 'src/reconcile/journal.ts',
    find: `    fence: () => ctx.store.assertFence(),
    ...(input.signal === undefined ? {} : { signal: input.signal }),
  }
  try {
    ctx.store.assertFence()`,
    replace: `    ...(input.signal === undefined ? {} : { signal: input.signal }),
  }
  try {`,
    caughtBy: quick('test/quick/fence.test.ts', 'one that was replaced after its commit calls no engine'),
  },
  {
    name: 'fence-not-asked-at-the-send',
    breaks:
      'A call that waited for its connection is sent although the control plane was replaced meanwhile.',
    file: 'src/engines/docker-api/http.ts',
    find: `          if (mutation) call.fence?.()`,
    replace: `          if (mutation && call.limitMs < 0) call.fence?.()`,
    caughtBy: quick('src/engines/docker-api/http.test.ts', 'the fence is asked when a connection is there'),
  },
]
