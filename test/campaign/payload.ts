import { setTimeout as delay } from 'node:timers/promises'
import type { ExecResult } from '@holdfast/client'
import type { Answer } from '../support/server.ts'
import { type Promised, sha256 } from './model.ts'
import type { Caller } from './requests.ts'

export interface Writer extends Caller {
  /** True when a command may have been ended from outside just now: its status then says nothing. */
  readonly excused?: (s: Promised) => boolean
  /** Answers that say nothing against the server, such as that its engine broke the connection. */
  readonly bears?: (code: string) => boolean
}

/** Runs a command once. Null when nothing is known of it: refused, unanswered, or lost on the way. */
export async function exec(
  o: Writer,
  s: Promised,
  command: string,
  stdin?: string,
): Promise<ExecResult | null> {
  let answer: Answer<ExecResult>
  try {
    const body = { command, timeoutSeconds: 20, ...(stdin === undefined ? {} : { stdin }) }
    answer = await o.server.call<ExecResult>('POST', `/sandboxes/${s.id}/exec`, { body })
  } catch {
    // The server was killed meanwhile; a command is not repeated.
    o.history.count('exec unanswered')
    return null
  }
  if (answer.status === 409 || answer.status === 503) {
    o.history.count('exec refused')
    await delay(o.random.int(20, 150))
    return null
  }
  // Another client stopped the sandbox under the command: it may have run in part, which is what the code says.
  const { code = '' } = answer.body as { code?: string }
  if (code === 'LANE_LOST' || o.bears?.(code) === true) {
    o.history.count('exec lost')
    return null
  }
  if (answer.status !== 200) {
    o.history.violated(`exec in ${s.name} answered ${answer.status}: ${JSON.stringify(answer.body)}`)
    return null
  }
  const result = answer.body
  if (result.lost !== null || result.exitCode === null || result.timedOut) {
    o.history.count('exec lost')
    return null
  }
  o.history.count('exec')
  if (result.exitCode === 0) return result
  if (o.excused?.(s) === true) {
    o.history.count('exec ended from outside')
    return null
  }
  o.history.violated(
    `in ${s.name}, \`${command.slice(0, 80)}\` ended with ${result.exitCode}: ${result.stderr}`,
  )
  return null
}

export async function write(o: Writer, s: Promised): Promise<void> {
  const dir = s.claim !== null && o.random.chance(0.5) ? '/data' : '/sandbox'
  // Never the same name again: an unanswered write that lands late then disturbs no other.
  const path = `${dir}/payload-${dir === '/data' ? `${s.name}-` : ''}${s.sent++}`
  const data = Array.from({ length: o.random.int(1, 400) }, () => o.random.int(0, 2 ** 31).toString(36)).join(
    '\n',
  )
  const done = await exec(o, s, `cat > ${path}.tmp && mv ${path}.tmp ${path} && sha256sum < ${path}`, data)
  if (done === null) return
  const sum = sha256(data)
  if (!done.stdout.startsWith(sum))
    o.history.violated(`${s.name}: what was written to ${path} reads as ${done.stdout.trim()}, not ${sum}`)
  s.files.set(path, sum)
}

export async function append(o: Writer, s: Promised): Promise<void> {
  const line = s.sent++
  const done = await exec(o, s, `echo ${line} >> /sandbox/counter.log`)
  if (done !== null) s.lines.add(line)
}

/** Any one of the acknowledged files, now. */
export async function check(o: Writer, s: Promised): Promise<void> {
  if (s.files.size === 0) return
  const [path, sum] = o.random.pick([...s.files])
  const done = await exec(o, s, `sha256sum < ${path}`)
  if (done !== null && !done.stdout.startsWith(sum))
    o.history.violated(`${s.name}: ${path} reads as ${done.stdout.trim()}, not ${sum}`)
}

/** All acknowledged files at once: the last chance before a delete. */
export async function checkAll(o: Writer, s: Promised): Promise<void> {
  if (s.files.size === 0) return
  const done = await exec(o, s, `sha256sum ${[...s.files.keys()].join(' ')}`)
  if (done === null) return
  for (const [path, sum] of s.files) {
    o.history.count('file compared')
    if (!done.stdout.includes(`${sum}  ${path}`))
      o.history.violated(`${s.name}: ${path} is not as it was acknowledged:\n${done.stdout}`)
  }
}
