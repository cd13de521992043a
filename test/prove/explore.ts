import { openStage, type Stage } from './explore/stage.ts'
import { type Scene, SCENES } from './explore/scenes.ts'

/**
 * Every way in which two clients, one reconciler, one engine and one crash can meet, for the smallest scenes. The
 * search keeps no state but its path: to go back it plays the scene again from its beginning, and a state that was
 * reached before is not entered a second time. In each state the monitor's invariants hold; from each in which nothing
 * is on its way any more the scene is run to its rest, and what was acknowledged has to be there.
 *
 * A choice is: the next request of a client; a call that changes something is carried out, and then, as a choice of its
 * own, answered; a look is answered, with what is there now or with what was there when it was asked for; the process
 * dies, once; a call of a dead process, or one that was given up, lands late, or never; time passes to the next timer
 * that sets something going.
 *
 * What is left out: a look that shows something in between its question and its answer; looks of one pass that are
 * answered in another order than they were asked for; time passing more often than the scene says, and a crash where it says none; a second crash
 * (`crash.ts` places pairs), a crash between two commits of one request or step (`crash.ts` places one at each); the
 * engine's events come at once; who the engine is and which images it has is answered at once.
 */

export interface Explored {
  readonly scene: string
  readonly states: number
  readonly transitions: number
  /** States from which everything was run to its rest. */
  readonly ends: number
  /** More states than were to be visited: it is not all of them. */
  readonly cut: boolean
  readonly failures: readonly Failure[]
}

export interface Failure {
  readonly again: string
  readonly choices: readonly string[]
  readonly problems: readonly string[]
}

const SAY_EVERY = 1_000
/** A scene that fails at all fails in many states; so many are told. */
const TOLD = 3

interface Frame {
  readonly state: string
  readonly choices: readonly string[]
  next: number
}

export function sceneOf(name: string): Scene {
  const found = SCENES.find((s) => s.name === name)
  if (found === undefined) throw new Error(`there is no scene ${name}`)
  return found
}

async function replay(scene: Scene, path: readonly string[]): Promise<Stage> {
  const stage = await openStage(scene)
  for (const key of path) await stage.take(key)
  return stage
}

export async function explore(
  name: string,
  most: number,
  say: (line: string) => void = () => undefined,
): Promise<Explored> {
  const scene = sceneOf(name)
  const seen = new Set<string>()
  const path: string[] = []
  const frames: Frame[] = []
  const failures: Failure[] = []
  let transitions = 0
  let ends = 0
  let stage = await replay(scene, path)

  const fail = async (problems: readonly string[]): Promise<void> => {
    const choices = await textsOf(scene, path)
    const at = path.join()
    failures.push({ again: `npm run crash -- --explore --only '${name}' --at '${at}'`, choices, problems })
  }
  /** A state that is entered for the first time; false when there is nothing beyond it. */
  const enter = async (): Promise<boolean> => {
    const state = stage.state()
    if (seen.has(state)) return false
    seen.add(state)
    if (seen.size % SAY_EVERY === 0) say(`${name}: ${seen.size} states so far`)
    const violations = stage.violations()
    if (violations.length > 0) {
      await fail(violations)
      return false
    }
    frames.push({ state, choices: (await stage.choices()).map((c) => c.key), next: 0 })
    if (!stage.isQuiet()) return true
    ends++
    const problems = await stage.end()
    stage.discard()
    if (problems.length > 0) await fail(problems)
    stage = await replay(scene, path)
    return true
  }

  let isHere = await enter()
  while (frames.length > 0 && failures.length < TOLD && seen.size < most) {
    const frame = frames.at(-1)
    if (frame === undefined) break
    const key = frame.choices[frame.next++]
    if (key === undefined) {
      frames.pop()
      path.pop()
      isHere = false
      continue
    }
    if (!isHere) {
      stage.discard()
      stage = await replay(scene, path)
      if (stage.state() !== frame.state)
        throw new Error(`${name}: the same choices lead to another state: ${path.join()}`)
    }
    path.push(key)
    await stage.take(key)
    transitions++
    isHere = await enter()
    if (!isHere) path.pop()
  }
  stage.discard()
  return { scene: name, states: seen.size, transitions, ends, cut: seen.size >= most, failures }
}

/** What each choice of a path was. */
async function textsOf(scene: Scene, path: readonly string[]): Promise<string[]> {
  const stage = await openStage(scene)
  const texts: string[] = []
  for (const key of path) {
    texts.push((await stage.choices()).find((c) => c.key === key)?.text ?? `${key}, which was no choice`)
    await stage.take(key)
  }
  stage.discard()
  return texts
}

/** Plays one path to its rest, for whoever looks for the cause. */
export async function exploreOne(name: string, at: string): Promise<Failure> {
  const path = at === '' ? [] : at.split(',')
  const stage = await replay(sceneOf(name), path)
  const problems = [...stage.violations()]
  if (problems.length === 0 && stage.isQuiet()) problems.push(...(await stage.end()))
  stage.discard()
  return { again: '', choices: await textsOf(sceneOf(name), path), problems }
}
