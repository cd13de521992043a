import type { Command, Option } from 'commander'

/** What the three scripts are written from: every command with its subcommands and options. */
export interface Leaf {
  /** Words after `holdfast`: `volume rm`. */
  readonly path: string
  readonly summary: string
  readonly options: readonly {
    readonly flags: readonly string[]
    readonly description: string
    readonly choices: readonly string[]
    readonly takesValue: boolean
  }[]
  readonly children: readonly Leaf[]
  readonly takes: 'sandbox' | 'volume' | 'other'
}

const takesOf = (command: Command): Leaf['takes'] => {
  const first = command.registeredArguments[0]?.name()
  return first === 'sandbox' || first === 'volume' ? first : 'other'
}

const optionOf = (option: Option): Leaf['options'][number] => ({
  flags: [option.short, option.long].filter((f): f is string => f !== undefined && f !== null),
  description: option.description,
  choices: option.argChoices ?? [],
  takesValue: option.required || option.optional,
})

export function leafOf(command: Command, path: string): Leaf {
  return {
    path,
    summary: command.summary() || command.description(),
    options: command.options.filter((o) => !o.hidden).map(optionOf),
    children: command.commands.map((c) => leafOf(c, `${path} ${c.name()}`.trim())),
    takes: takesOf(command),
  }
}

const LIST = { sandbox: 'holdfast ls -o name', volume: 'holdfast volume ls -o name' } as const

const flat = (leaf: Leaf): readonly Leaf[] => [leaf, ...leaf.children.flatMap(flat)]
const all = (program: Command): readonly Leaf[] => leafOf(program, '').children.flatMap(flat)
const flagsOf = (leaf: Leaf): string => ['--help', ...leaf.options.flatMap((o) => o.flags)].join(' ')
const namesOf = (leaf: Leaf): string => leaf.children.map((c) => c.path.split(' ').at(-1) ?? '').join(' ')

export function bashScript(program: Command): string {
  const cases = all(program).map((leaf) => {
    const words =
      leaf.children.length > 0
        ? namesOf(leaf)
        : leaf.takes === 'other'
          ? ''
          : `$(${LIST[leaf.takes]} 2>/dev/null)`
    return `    '${leaf.path}') flags='${flagsOf(leaf)}'; words="${words}" ;;`
  })
  const choices = all(program)
    .flatMap((leaf) => leaf.options.filter((o) => o.choices.length > 0).map((o) => ({ leaf, o })))
    .map(
      ({ leaf, o }) =>
        `    ${o.flags.map((f) => `'${leaf.path} ${f}'`).join('|')}) COMPREPLY=($(compgen -W '${o.choices.join(' ')}' -- "$cur")); return ;;`,
    )
  const groups = all(program)
    .filter((leaf) => leaf.children.length > 0)
    .map((leaf) => leaf.path)
  return `# bash completion for holdfast: source <(holdfast completion bash)
_holdfast() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" prev="\${COMP_WORDS[COMP_CWORD-1]}" path='' flags='' words='' i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "\${COMP_WORDS[i]}" in
      -*) ;;
      *)
        if [[ -z $path ]]; then path="\${COMP_WORDS[i]}"
        elif [[ " ${groups.join(' ')} " == *" $path "* ]]; then path="$path \${COMP_WORDS[i]}"; break
        fi ;;
    esac
  done
  case "$path $prev" in
${choices.join('\n')}
  esac
  case "$path" in
    '') flags='--help --version --server --api-key'; words='${namesOf(leafOf(program, ''))}' ;;
${cases.join('\n')}
  esac
  if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W "$flags" -- "$cur"))
  elif [[ $path == cp ]]; then COMPREPLY=($(compgen -f -- "$cur"))
  else COMPREPLY=($(compgen -W "$words" -- "$cur"))
  fi
}
complete -F _holdfast holdfast
`
}

const zshQuote = (text: string): string =>
  text.replaceAll("'", "'\\''").replaceAll(':', '\\:').replaceAll(/[[\]]/g, '\\$&')

export function zshScript(program: Command): string {
  const describeAll = (leaf: Leaf): string =>
    leaf.children.map((c) => `'${c.path.split(' ').at(-1)}:${zshQuote(c.summary)}'`).join(' ')
  const cases = all(program).map((leaf) => {
    const options = leaf.options.flatMap((o) =>
      o.flags.map(
        (f) => `'${f}[${zshQuote(o.description)}]${o.takesValue ? `:value:(${o.choices.join(' ')})` : ''}'`,
      ),
    )
    const rest =
      leaf.children.length > 0
        ? `"1:command:((${leaf.children.map((c) => c.path.split(' ').at(-1)).join(' ')}))"`
        : leaf.takes === 'other'
          ? "'*:file:_files'"
          : `"*:${leaf.takes}:($(${LIST[leaf.takes]} 2>/dev/null))"`
    return `    '${leaf.path}') _arguments ${[...options, rest].join(' ')} ;;`
  })
  const groups = all(program)
    .filter((leaf) => leaf.children.length > 0)
    .map((leaf) => leaf.path)
  return `#compdef holdfast
# zsh completion for holdfast: source <(holdfast completion zsh), or save as _holdfast in $fpath
_holdfast() {
  local -a commands
  commands=(${describeAll(leafOf(program, ''))})
  if (( CURRENT == 2 )); then _describe 'command' commands; return; fi
  local cmd="\${words[2]}"
  if [[ " ${groups.join(' ')} " == *" $cmd "* ]] && (( CURRENT > 3 )); then
    cmd="$cmd \${words[3]}"; shift 2 words; (( CURRENT -= 2 ))
  else
    shift words; (( CURRENT -= 1 ))
  fi
  case "$cmd" in
${cases.join('\n')}
  esac
}
compdef _holdfast holdfast
`
}

const fishQuote = (text: string): string => text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")

export function fishScript(program: Command): string {
  const root = leafOf(program, '')
  const lines = root.children.flatMap((leaf) => {
    const own = `complete -c holdfast -n __fish_use_subcommand -a '${leaf.path}' -d '${fishQuote(leaf.summary)}'`
    return [own, ...fishLeaf(leaf)]
  })
  return `# fish completion for holdfast: holdfast completion fish | source
# Whether the words so far begin with these; with -x, whether they are just these.
function __holdfast_at
    set -l words
    for word in (commandline -opc)[2..]
        string match -q -- '-*' $word; or set -a words $word
    end
    if test "$argv[1]" = -x
        test "$words" = "$argv[2..]"
    else
        test "$words[1..$(count $argv)]" = "$argv"
    end
end
complete -c holdfast -f
${lines.join('\n')}
complete -c holdfast -n '__holdfast_at cp' -F
`
}

function fishLeaf(leaf: Leaf): readonly string[] {
  const at = `complete -c holdfast -n '__holdfast_at ${leaf.path}'`
  const options = leaf.options.map((o) => {
    const flags = o.flags.map((f) => (f.startsWith('--') ? `-l ${f.slice(2)}` : `-s ${f.slice(1)}`)).join(' ')
    const value = o.choices.length > 0 ? ` -x -a '${o.choices.join(' ')}'` : o.takesValue ? ' -r' : ''
    return `${at} ${flags}${value} -d '${fishQuote(o.description)}'`
  })
  const refs = leaf.takes === 'other' ? [] : [`${at} -a '(${LIST[leaf.takes]} 2>/dev/null)'`]
  const children = leaf.children.flatMap((child) => [
    `complete -c holdfast -n '__holdfast_at -x ${leaf.path}' -a '${child.path.split(' ').at(-1)}' -d '${fishQuote(child.summary)}'`,
    ...fishLeaf(child),
  ])
  return [...options, ...refs, ...children]
}
