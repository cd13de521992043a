import type { Clock } from '../model/clock.ts'
import { sleep } from '../model/clock.ts'
import type { GuestTarget } from './guest.ts'
import { startRaw } from './raw.ts'
import { EXEC_MARK, LANE_MARK, markValue } from './script.ts'

/** How long one look through an instance's processes may take. */
const REAP_LIMIT_MS = 30_000
/** Users whose commands are looked for beside the instance's own. */
const MAX_USERS = 16

export interface Reaped {
  /** Commands that were ended. */
  readonly ended: number
}

/**
 * Finds the commands that an earlier control plane left running in the foreground, and ends them: nobody can read
 * their output any more. `$1` is the sandbox, `$2` the current epoch, both as the marks in the environments hold them.
 *
 * A lane's shell alone carries the lane mark, and its command is the child that leads a session. A plain exec's
 * command carries the other mark and has no parent in the instance. Children that a command left in the
 * background are neither, and stay. Prints the users whose processes could not be looked at.
 */
const REAP_SCRIPT = `self=$1 now=$2 count=0 hidden=
old() { v=\${e##*"$1=:$self:"}; [ "$v" != "$e" ] && [ "\${v%%:*}" -lt "$now" ]; }
stat() { l=; read -r l <"$1/stat" || return 1; l=\${l##*) }; set -- $l; ppid=$2 sid=$4; }
end() { kill -$1 -$2 || kill -$1 $2; } 2>/dev/null
scan() { lanes=' ' hidden= count=0
for p in /proc/[0-9]*; do
 stat "$p" || continue
 if [ ! -r "$p/environ" ] || ! e=$(tr '\\0' ' ' <"$p/environ"); then [ "$ppid" = 0 ] && hidden="$hidden $p"; continue; fi
 old ${LANE_MARK} && lanes="$lanes\${p#/proc/} "
 if old ${EXEC_MARK} && [ "$ppid" = 0 ]; then end $1 \${p#/proc/}; count=$((count+1)); fi
done
[ "$lanes" = ' ' ] && return
for p in /proc/[0-9]*; do
 stat "$p" || continue
 case $lanes in *" $ppid "*) if [ "$sid" = "\${p#/proc/}" ]; then end $1 $sid; count=$((count+1)); fi;; esac
done; }
{ scan TERM; first=$count; if [ $count -gt 0 ]; then sleep 1; h=$hidden; scan KILL; hidden=$h; fi; } 2>/dev/null
echo "ended $first"
for p in $hidden; do while read -r k u _; do [ "$k" = Uid: ] && echo "user $u"; done <"$p/status"; done 2>/dev/null
:`

/**
 * Ends what earlier epochs of this control plane left in the foreground of an instance. Called at start-up, before
 * the instance's first command. An image without `sh` has no lanes and reaps nothing.
 * Rejects with `EngineError` when the instance cannot be looked into, or an `Error` after 30 s.
 */
export async function reapStale(clock: Clock, target: GuestTarget, epoch: number): Promise<Reaped> {
  const first = await look(clock, target, epoch, undefined)
  let ended = first.ended
  // Another user's processes are hidden even from root where capabilities are dropped: each user looks for itself.
  for (const user of first.users.slice(0, MAX_USERS)) ended += (await look(clock, target, epoch, user)).ended
  return { ended }
}

async function look(
  clock: Clock,
  target: GuestTarget,
  epoch: number,
  user: string | undefined,
): Promise<{ ended: number; users: string[] }> {
  const command = ['sh', '-c', REAP_SCRIPT, 'sh', target.sandbox, String(epoch)]
  const job = await startRaw(
    target.engine,
    target.engineId,
    markValue(target.sandbox, epoch),
    { command, user, stdin: 'none' },
    false,
  )
  job.stderr.resume()
  let said = ''
  const read = (async () => {
    for await (const chunk of job.stdout) said += (chunk as Buffer).toString()
    await job.end
    return true
  })()
  const late = new AbortController()
  const limit = sleep(clock, REAP_LIMIT_MS, late.signal).then(
    () => false,
    () => false,
  )
  const inTime = await Promise.race([read, limit])
  late.abort()
  if (!inTime) {
    job.exec.destroy()
    throw new Error(
      `the processes of ${target.sandbox} could not be looked through within ${REAP_LIMIT_MS} ms`,
    )
  }
  const users = [...new Set([...said.matchAll(/^user (\d+)$/gm)].map((m) => m[1] as string))]
  return { ended: Number(/^ended (\d+)$/m.exec(said)?.[1] ?? 0), users }
}
