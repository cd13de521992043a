import { doorMutants } from './doors.ts'
import { fencingMutants } from './fencing.ts'
import { journalMutants } from './journal.ts'
import { lifeMutants } from './life.ts'
import { ownershipMutants } from './ownership.ts'
import type { Mutant } from './types.ts'
import { volumeMutants } from './volumes.ts'

/** Every deliberate bug that the tests have to catch. */
export const MUTANTS: readonly Mutant[] = [
  ...journalMutants,
  ...fencingMutants,
  ...ownershipMutants,
  ...volumeMutants,
  ...lifeMutants,
  ...doorMutants,
]
