import type { Context, Define } from '../context.ts'
import { examples } from '../lifecycle.ts'
import { json, outputOptions, type OutputOptions } from '../output.ts'
import { createBody, KEEP_UP, specOptions, type SpecOptions } from '../spec.ts'
import { goals, hasFinished, waitFor, waitOptions, type WaitOptions } from '../wait.ts'

interface CreateOptions extends SpecOptions, WaitOptions, OutputOptions {
  readonly imageCommand?: boolean
}

export const define: Define = (command, run) => {
  specOptions(
    command
      .argument('<image>', 'image to run')
      .argument('[command...]', 'main process; without one the sandbox just stays up for exec'),
  ).option('--image-command', "run the image's own command")
  outputOptions(waitOptions(command))
    .addHelpText(
      'after',
      examples([
        'holdfast create --name dev debian:12',
        'holdfast create --name web -v site:/srv:ro --restart always nginx --image-command',
        'holdfast create --memory 1Gi --expires 2h python:3 -- python3 -m http.server 8000',
      ]),
    )
    .action((image: string, words: string[], options: CreateOptions) =>
      run(command, (context) => create(context, image, words, options)),
    )
}

async function create(
  context: Context,
  image: string,
  words: readonly string[],
  options: CreateOptions,
): Promise<number> {
  const entrypoint = words.length === 0 && options.imageCommand !== true ? KEEP_UP : words
  const body = createBody(image, entrypoint, options, context.io.env)
  const client = await context.client()
  const made = await client.sandboxes.create(body)
  const label = made.name ?? made.id
  if (options.output === 'json' && !options.wait) context.print(json(made))
  else if (options.output === 'name' && options.quiet !== true) context.print(label)
  // Told before the wait, so that an interrupted or late create can still be found.
  else if (options.output !== 'json') context.print(made.id)
  if (!options.wait) return 0
  const sandbox = await waitFor(context, client, made.id, label, goals.running, options.timeout)
  if (options.output === 'json') context.print(json(sandbox))
  if (sandbox !== null && hasFinished(sandbox)) {
    context.note(
      `${label} has ended by itself with exit code ${sandbox.lastExit?.code ?? 'unknown'}: holdfast logs ${label}`,
    )
  }
  return 0
}
