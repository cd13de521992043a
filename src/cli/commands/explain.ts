import { styleText } from 'node:util'
import type { Explanation } from '@holdfast/client'
import { Option } from 'commander'
import type { Context, Define } from '../context.ts'
import { examples } from '../lifecycle.ts'
import { json } from '../output.ts'
import { forEachRef, resolveRef } from '../refs.ts'
import { ago, fields, plain, until } from '../render.ts'

export const define: Define = (command, run) => {
  command
    .argument('<sandbox...>', 'names, ids or beginnings of ids')
    .addOption(new Option('-o, --output <format>', 'how to print').choices(['text', 'json']).default('text'))
    .addHelpText('after', examples(['holdfast explain web', 'holdfast explain -o json web | jq .next']))
    .action((refs: string[], options: { output: string }) =>
      run(command, (context) =>
        forEachRef(context, refs, async (ref) => {
          const client = await context.client()
          const found = await client.sandboxes.explain(await resolveRef(client, ref))
          context.print(options.output === 'json' ? json(found) : explainText(context, ref, found))
          return 0
        }),
      ),
    )
}

function observedText({ observed }: Explanation, now: number): string {
  if (!observed.known) {
    const since = observed.since === undefined ? '' : ` for ${ago(observed.since, now)}`
    return `unknown${since}: ${observed.error ?? 'not looked at yet'} (nothing is removed while it is unknown)`
  }
  const at = observed.at === undefined ? '' : `, seen ${ago(observed.at, now)} ago`
  const { instance } = observed
  if (instance == null) return `no instance${at}`
  const state = instance.paused ? 'paused' : instance.state
  const exit = instance.exitCode === null ? '' : ` (exit code ${instance.exitCode})`
  return `${state}${exit}, instance ${instance.name}${at}`
}

function errorText({ lastError }: Explanation, now: number): string | null {
  if (lastError === null) return null
  const times = lastError.attempts === 1 ? 'once' : `${lastError.attempts} times`
  return `${lastError.message} (${lastError.code}, ${times}, last ${ago(lastError.at, now)} ago)`
}

export function explainText({ io }: Pick<Context, 'io'>, ref: string, e: Explanation): string {
  const now = io.now()
  const due = e.nextAt === null ? '' : `, ${until(e.nextAt, now)}`
  const exit = e.lastExit === null ? null : `${e.lastExit.code ?? 'unknown'} (${e.lastExit.class})`
  const lines = [
    styleText('bold', plain(ref === e.id ? e.id : `${ref} (${e.id})`), { stream: io.stdout }),
    fields([
      [
        'Wanted',
        `${e.wanted.state} (${e.wanted.reason}, ${ago(e.wanted.at, now)} ago, generation ${e.wanted.generation})`,
      ],
      ['Observed', observedText(e, now)],
      ['Difference', e.difference || 'none'],
      ['Next', `${e.next || 'nothing to do'}${due}`],
      ['Held', e.held],
      ['Last error', errorText(e, now)],
      [
        'Held back',
        e.breaker === null ? null : `${e.breaker.reason}; tried again ${until(e.breaker.probeAt, now)}`,
      ],
      [
        'Open steps',
        e.openSteps.map((s) => `${s.kind} (for ${ago(s.since, now)}, attempt ${s.attempts})`).join(', '),
      ],
      ['Last exit', exit],
      ['Data', e.survives.map((v) => `${v.claimName} (${v.uid}, ${v.state})`).join(', ') || 'no volumes'],
      [
        'Engine',
        `${e.engine.id}, ${e.engine.ok ? 'answers' : `does not answer: ${e.engine.error ?? 'no reason given'}`}`,
      ],
    ]),
  ]
  if (e.suggestions.length > 0) lines.push('Possible now:', ...e.suggestions.map((s) => `  ${plain(s)}`))
  return lines.join('\n')
}
