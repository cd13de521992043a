import { sleep, type Clock } from '../model/clock.ts'

export type Signal = 'INT' | 'TERM' | 'KILL' | 'HUP' | 'QUIT' | 'USR1' | 'USR2'

/**
 * What signals go to:
 * - `group`: the pid leads a group of its own.
 * - `lane`: no `setsid` in the image; the command shares the lane's group, which ignores all but KILL.
 * - `marked`: no shell could be put around it; it and its children are found by what their environment carries.
 * - `either`: started by the engine itself, which may or may not have made it a group's leader.
 */
export type SignalTarget =
  | { readonly scope: 'group' | 'either'; readonly pid: number }
  | { readonly scope: 'lane'; readonly pid: number; readonly group: number }
  | { readonly scope: 'marked'; readonly mark: string }

/** Each signal of a cancel, and how long the group may take to go after it. */
const ESCALATION: readonly { readonly signal: Signal; readonly waitMs: number }[] = [
  { signal: 'INT', waitMs: 2_000 },
  { signal: 'TERM', waitMs: 3_000 },
  { signal: 'KILL', waitMs: 3_000 },
]
const LOOK_FIRST_MS = 20
const LOOK_MAX_MS = 250

/** The script that sends a signal; fails when there is nobody to send it to. Only `kill -SIG -PID` is portable. */
export function killScript(signal: Signal | '0', to: SignalTarget): string {
  switch (to.scope) {
    case 'group':
      return signal === '0' ? livingInGroup(to.pid) : `kill -${signal} -${to.pid}`
    case 'either':
      return `kill -${signal} -${to.pid} || kill -${signal} ${to.pid}`
    case 'lane':
      // The lane's group is always there: only the command itself tells whether something is left.
      return signal === '0' ? `kill -0 ${to.pid}` : `kill -0 ${to.pid} && kill -${signal} -${to.group}`
    case 'marked':
      return `n=1; for p in /proc/[0-9]*; do e=$(tr '\\0' ' ' <$p/environ) && case $e in *'${to.mark}'*) kill -${signal} \${p#/proc/} && n=0;; esac; done; [ $n = 0 ]`
  }
}

/** Succeeds while the group has a member that is no zombie: an image's first process may reap nobody. */
function livingInGroup(group: number): string {
  return `kill -0 -${group} && for p in /proc/[0-9]*; do l=; read -r l <$p/stat && l=\${l##*) } && set -- $l && [ "$3" = ${group} ] && [ "$1" != Z ] && exit 0; done; exit 1`
}

/** `absent`: it had ended before the first signal. `left`: something of it is there even after KILL. */
export type Ending = 'absent' | 'gone' | 'left'

/**
 * Ends a command's group: INT, TERM, KILL, each with a bounded wait. `left` is a process that the kernel cannot end,
 * or zombies that nobody reaps. `run` runs a script in the instance and tells whether it succeeded.
 */
export async function endGroup(
  clock: Clock,
  to: SignalTarget,
  run: (script: string) => Promise<boolean>,
): Promise<Ending> {
  let sent = false
  for (const { signal, waitMs } of ESCALATION) {
    if (!(await run(killScript(signal, to)))) return sent ? 'gone' : 'absent'
    sent = true
    const until = clock.monotonic() + waitMs
    for (let wait = LOOK_FIRST_MS; clock.monotonic() < until; wait = Math.min(wait * 2, LOOK_MAX_MS)) {
      await sleep(clock, wait)
      if (!(await run(killScript('0', to)))) return 'gone'
    }
  }
  return 'left'
}
