import { fail, type FieldIssue } from '../model/errors.ts'

/** Longest script or argument list, in bytes: with the environment it stays below the kernel's 2 MiB. More goes into a file. */
export const SCRIPT_MAX_BYTES: number = 1_048_576
/** All names and values of an environment together, in bytes. */
export const ENV_MAX_BYTES: number = 262_144
/** Units per argument: the kernel takes 128 KiB per argument, and a unit is at most three bytes. */
const CHUNK_CHARS = 30_000
/** Standard input up to this many bytes travels inside the line; four characters per byte. */
export const INLINE_STDIN_BYTES: number = 16_384

/** Carried by the environment of a lane's shell only, so that a later control plane can tell what an earlier one left. */
export const LANE_MARK = 'HOLDFAST_LANE'
/** The same for commands that run without a lane; their children inherit it. */
export const EXEC_MARK = 'HOLDFAST_EXEC'

/** `:` on both ends, so that a search for an epoch can never match the head of a longer one. */
export function markValue(sandbox: string, epoch: number): string {
  return `:${sandbox}:${epoch}:`
}

/**
 * What a lane's shell is told first. Every name is prefixed: an image may set any variable, and a shell re-exports
 * what it imported. Descriptors 3 and 4 are the lane's output and are closed in every command.
 *
 * `__hf_h` is true while a process other than this shell has the lane's output as its descriptor 1 or 2: closing
 * or reusing the lane would then kill a background child, or mix its output into the next command.
 * The EXIT trap waits for such children, because an engine closes their pipes with the shell.
 * The signals are ignored here and reset in each command; a trap could not be reset in all shells.
 */
export function bootText(helloTag: string): string {
  return `exec 3>&1 4>&2 >/dev/null 2>&1
__hf_h() { for __hf_x in /proc/[0-9]*/fd/[12]; do case $__hf_x in "/proc/$$/"*) ;; *) if [ "$__hf_x" -ef "/proc/$$/fd/3" ] || [ "$__hf_x" -ef "/proc/$$/fd/4" ]; then return 0; fi;; esac; done; return 1; }
__hf_w() { __hf_n=1; while __hf_h; do sleep $__hf_n || break; [ $__hf_n -ge 15 ] || __hf_n=$((__hf_n+1)); done; }
trap __hf_w EXIT
trap '' INT TERM HUP QUIT PIPE
__hf_S=$(command -v setsid)
__hf_b=$(command -v sh) || __hf_b=/bin/sh
__hf_l='__hf_s=;for __hf_a do __hf_s=$__hf_s$__hf_a;done;set --;echo $$;eval "unset __hf_s __hf_a;$__hf_s"'
__hf_k='echo $$;exec "$@"'
__hf_c() { ( trap - INT TERM HUP QUIT PIPE; unset ${LANE_MARK}; if [ -n "$__hf_d" ]; then cd -- "$__hf_d" || exit 126; unset OLDPWD; fi; if [ -n "$__hf_e" ]; then eval "$__hf_e" || exit 126; fi; exec \${__hf_S:+"$__hf_S"} "$@" ) >&3 2>&4 3>&- 4>&-; }
__hf_f() { if __hf_h; then printf '%s busy\\n' "$1" >&3; else printf '%s free\\n' "$1" >&3; fi; }
__hf_r() { __hf_t=$1 __hf_i=$2 __hf_d=$3 __hf_e=$4; shift 4
printf '%s ' "$__hf_t" >&3
case $__hf_i in n) __hf_c "$@" </dev/null;; i) __hf_c "$@";; *) printf "$__hf_i" | __hf_c "$@";; esac
__hf_s=$?
printf '%s\\n' "$__hf_t" >&4
printf '%s %s\\n' "$__hf_t" $__hf_s >&3
if [ "$__hf_i" = i ]; then exit; fi
__hf_f "$__hf_t"; }
read -r __hf_p </proc/$$/stat; __hf_p=\${__hf_p##*) }; set -- $__hf_p
__hf_v=blind; [ "/proc/$$/fd/3" -ef "/proc/$$/fd/3" ] && [ "$1" ] && __hf_v=sees
printf '${helloTag} %s %s %s %s\\n' $$ "\${3:-0}" "\${__hf_S:+setsid}." $__hf_v >&3
set --
`
}

/** What the command in a lane is. */
export interface LaneCommandText {
  readonly command: readonly string[] | { readonly script: string }
  readonly workingDir?: string | undefined
  readonly env?: Readonly<Record<string, string>> | undefined
  /** `stream`: the lane's own input becomes the command's, and the lane is used up. */
  readonly stdin: 'none' | 'stream' | Uint8Array
}

/** The line that runs a command in a lane. The tag and the environment are never in any process's argument list. */
export function jobLine(tag: string, text: LaneCommandText): string {
  const mode = text.stdin === 'none' ? 'n' : text.stdin === 'stream' ? 'i' : octal(text.stdin)
  const dir = text.workingDir ?? ''
  const cwd = dir === '' || dir.startsWith('/') ? dir : `./${dir}`
  const exports = Object.entries(text.env ?? {}).map(([name, value]) => `${name}=${quote(value)}`)
  const env = exports.length === 0 ? '' : `export ${exports.join(' ')}`
  const body =
    'script' in text.command
      ? `"$__hf_l" sh ${chunks(text.command.script).map(quote).join(' ')}`
      : `"$__hf_k" sh ${text.command.map(quote).join(' ')}`
  return `__hf_r ${tag} ${mode} ${quote(cwd)} ${quote(env)} "$__hf_b" -c ${body}\n`
}

/** The line that asks a lane whether background children still hold its output. */
export function probeLine(tag: string): string {
  return `__hf_f ${tag}\n`
}

/**
 * The argument list for an engine's plain exec. With `shell`, its first line of output is the pid of its group;
 * without, the program is started as it is and cannot be signalled.
 */
export function rawCommand(command: LaneCommandText['command'], shell: boolean): string[] {
  if ('script' in command) {
    const loader = `__hf_s=;for __hf_a do __hf_s=$__hf_s$__hf_a;done;set --;${shell ? 'echo $$;' : ''}eval "unset __hf_s __hf_a;$__hf_s"`
    return ['sh', '-c', loader, 'sh', ...chunks(command.script)]
  }
  return shell ? ['sh', '-c', 'echo $$;exec "$@"', 'sh', ...command] : [...command]
}

/** Checks what no shell and no kernel can carry, before anything is opened. Throws `HoldfastError`. */
export function checkCommand(text: LaneCommandText): void {
  const issues: FieldIssue[] = []
  const noNul = (path: string, value: string): void => {
    if (value.includes('\0')) issues.push({ path, message: 'must not contain a NUL character' })
  }
  const env = Object.entries(text.env ?? {})
  if ('script' in text.command) noNul('command', text.command.script)
  else if (text.command.length === 0) issues.push({ path: 'command', message: 'must name a program' })
  else for (const [i, arg] of text.command.entries()) noNul(`command[${i}]`, arg)
  noNul('workingDir', text.workingDir ?? '')
  for (const [name, value] of env) {
    noNul(`env.${name}`, value)
    if (name === '' || /[=\0]/.test(name))
      issues.push({ path: `env.${name}`, message: 'is not a name an environment can hold' })
  }
  if (issues.length > 0) throw fail('INVALID_REQUEST', { issues })
  const words = 'script' in text.command ? [text.command.script] : text.command
  if (byteLength(words) > SCRIPT_MAX_BYTES) throw fail('PAYLOAD_TOO_LARGE', { limitBytes: SCRIPT_MAX_BYTES })
  if (byteLength(env.flat()) > ENV_MAX_BYTES) throw fail('PAYLOAD_TOO_LARGE', { limitBytes: ENV_MAX_BYTES })
}

function byteLength(words: readonly string[]): number {
  return words.reduce((sum, word) => sum + Buffer.byteLength(word), 0)
}

/** Names that some shell keeps for itself: assigning them fails or gives the program another value. */
const SHELL_OWNED =
  /^(_|UID|EUID|PPID|GROUPS|DIRSTACK|FUNCNAME|BASH.*|SHELLOPTS|OPTIND|OPTARG|RANDOM|SRANDOM|SECONDS|LINENO|EPOCH.*|HISTCMD|IFS|PWD|OLDPWD|__hf_.*)$/

/** True when a shell can hand on exactly this environment; other names need the engine's own exec. */
export function shellCanExport(env: Readonly<Record<string, string>> | undefined): boolean {
  return Object.keys(env ?? {}).every(
    (name) => /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) && !SHELL_OWNED.test(name),
  )
}

/** One shell word that stands for exactly this text. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}

function octal(bytes: Uint8Array): string {
  let out = ''
  for (const b of bytes) out += `\\${b.toString(8).padStart(3, '0')}`
  return quote(out)
}

/** Pieces of at most `CHUNK_CHARS` units that never split a surrogate pair; an empty script is one empty piece. */
function chunks(script: string): string[] {
  const out: string[] = []
  for (let at = 0; at < script.length;) {
    let end = Math.min(at + CHUNK_CHARS, script.length)
    const last = script.charCodeAt(end - 1)
    if (end < script.length && last >= 0xd800 && last <= 0xdbff) end--
    out.push(script.slice(at, end))
    at = end
  }
  return out.length === 0 ? [''] : out
}
