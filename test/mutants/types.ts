/** The test that has to fail once the bug is in. */
export interface Catcher {
  /** A project of `vitest.config.ts`; `engines` needs Docker. */
  readonly project: 'quick' | 'engines'
  readonly file: string
  /** Its name with those of its groups, or a part of that which fits it and no other. */
  readonly test: string
}

/** One deliberate bug: a text of the sources, found exactly once, and what stands in its place. */
export interface Mutant {
  readonly name: string
  /** What it breaks, in one sentence. */
  readonly breaks: string
  readonly file: string
  readonly find: string
  readonly replace: string
  readonly caughtBy: Catcher
}

export const quick = (file: string, test: string): Catcher => ({ project: 'quick', file, test })
export const engines = (file: string, test: string): Catcher => ({ project: 'engines', file, test })
