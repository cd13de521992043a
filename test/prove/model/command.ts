import type { AsyncCommand } from 'fast-check'
import { type Model, note, type Real, type Subject } from './state.ts'

export type Command = AsyncCommand<Model, Real>

/** A command that can always be given, and shows itself as it is written here. */
export function command(
  text: string,
  run: (model: Model, real: Real) => Promise<void> | void,
  check: (model: Readonly<Model>) => boolean = () => true,
): Command {
  return {
    check,
    toString: () => text,
    async run(model, real) {
      real.figures.commands++
      note(model, real)
      await run(model, real)
      note(model, real)
      real.plane.monitor.check()
    },
  }
}

/** A command about one of the sandboxes there are. */
export function about(
  text: string,
  n: number,
  run: (subject: Subject, model: Model, real: Real) => Promise<void> | void,
): Command {
  return command(
    `${text}(${n})`,
    (model, real) => {
      const subject = model.subjects[n % model.subjects.length]
      return subject === undefined ? undefined : run(subject, model, real)
    },
    (model) => model.subjects.length > 0,
  )
}
