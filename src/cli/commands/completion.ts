import { Argument } from 'commander'
import { CATALOG } from '../catalog.ts'
import { bashScript, fishScript, zshScript } from '../completion.ts'
import type { Define } from '../context.ts'
import { examples } from '../lifecycle.ts'

const SCRIPTS = { bash: bashScript, zsh: zshScript, fish: fishScript } as const

export const define: Define = (command, run) => {
  command
    .addArgument(new Argument('<shell>', 'which shell').choices(Object.keys(SCRIPTS)))
    .addHelpText(
      'after',
      examples([
        'source <(holdfast completion bash)',
        'holdfast completion zsh > ~/.zfunc/_holdfast',
        'holdfast completion fish > ~/.config/fish/completions/holdfast.fish',
      ]),
    )
    .action((shell: keyof typeof SCRIPTS) =>
      run(command, async (context) => {
        const { buildProgram } = await import('../program.ts')
        const program = await buildProgram(context.io, CATALOG, () => () => Promise.resolve())
        context.io.stdout.write(SCRIPTS[shell](program))
        return 0
      }),
    )
}
