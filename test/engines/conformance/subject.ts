import type { Engine } from '../../../src/engines/engine.ts'

/**
 * What the suite asks workloads and execs to do. Real engines run `posixCommands`; the simulated engine brings its
 * own table, so that it needs no shell. Each entry is an argument list for an entrypoint or an exec alike.
 */
export interface Commands {
  /** Runs until TERM, then ends by itself with 0. */
  readonly run: readonly string[]
  exit(code: number): readonly string[]
  /** Ends itself by an uncaught KILL. */
  readonly killSelf: readonly string[]
  /** On TERM works on for about a second, says `finished` and ends with 7. */
  readonly lateTerm: readonly string[]
  readonly ignoreTerm: readonly string[]
  /** Says `tick` ten times a second until TERM. */
  readonly ticks: readonly string[]
  /** Writes `out` and `err` to the two streams, then ends with 0. */
  say(out: string, err: string): readonly string[]
  /** Says `one`, a second or more later `two`, and ends. */
  readonly twoLines: readonly string[]
  /** Prints four lines: the variable, the working directory, the numeric user, the host name. */
  show(variable: string): readonly string[]
  write(path: string, text: string): readonly string[]
  /** The file's bytes on stdout; a status other than 0 when there is none. */
  read(path: string): readonly string[]
  /** Copies stdin to stdout until its end, then says `end` on stderr. */
  readonly cat: readonly string[]
  /** Writes this many bytes. */
  flood(bytes: number): readonly string[]
  /** Says `rows columns` of its terminal again and again, or `not a tty`, until it is ended. */
  readonly terminal: readonly string[]
  /** Answers on a TCP port with what it is sent. */
  echoServer(port: number): readonly string[]
  /** A program that is not there. */
  readonly missing: readonly string[]
}

/**
 * What an image for seeding holds at `path`: `hello.txt` (0640, `hello\n`), `run.sh` (0755, any content), a symbolic
 * link `link` to `hello.txt`, and `sub/deep.txt` (`deep\n`). The image also has `/tmp` and what `commands` needs.
 */
export interface SeededImage {
  readonly image: string
  readonly path: string
}

/**
 * What a subject may lack by its nature. The tests of what it lacks are not registered, and one test holds each word
 * against what the subject gives and does, so that none is left out in silence. What an engine may lack and its
 * contract names, it declares in its `capabilities` instead, and is held to refuse it.
 */
export interface Traits {
  /** Instances have a file system and a host name of their own: a volume is at the path where it is mounted. */
  readonly isolated: boolean
  /** The engine knows when each line of a log was written. */
  readonly logTimes: boolean
  /** The subject brings `seeded`, which only isolated instances can show. */
  readonly seededImage: boolean
  /** The subject brings `declares`. */
  readonly declaringImage: boolean
}

export const ALL_TRAITS: Traits = { isolated: true, logTimes: true, seededImage: true, declaringImage: true }

/** What a driver's author gives to the suite: one engine that answers, and how to reach round its back. */
export interface Subject {
  readonly engine: Engine
  /** Present on the engine, with `/tmp` and what `commands` needs. */
  readonly image: string
  /** Well-formed and nowhere; if it names a registry then one that refuses at once, as `127.0.0.1:9/none:1`. */
  readonly missingImage: string
  /** Absent: `posixCommands`. */
  readonly commands?: Commands
  /** Together with the trait `seededImage`. */
  readonly seeded?: SeededImage
  /** Together with the trait `declaringImage`: an image that declares this path as `VOLUME`. */
  readonly declares?: { readonly image: string; readonly path: string }
  /** An empty directory of the engine's machine, writable for the image's user, that may be mounted. */
  readonly hostDir: string
  /** A directory inside instances that any user can write to, not a mount; `/tmp` when absent. */
  readonly scratch?: string
  /** Removes an instance, running or not, without the driver (`docker rm -f`). */
  removeBehind(id: string): Promise<void>
  /** Kills an instance's main process without the driver. */
  killBehind(id: string): Promise<void>
  /** After the suite has removed all that it made: closes the engine and removes what the subject made. */
  cleanup(): Promise<void>
}

const sh = (script: string, ...args: string[]): readonly string[] => ['sh', '-c', script, 'sh', ...args]

/** `sleep` runs in the background so that a trap is taken at once. */
const untilTerm = (step: string, seconds: string): string =>
  `while :; do ${step} sleep ${seconds} & wait $!; done`

const ECHO_SERVER = `
if busybox nc --help 2>&1 | grep -q -e '-e PROG'; then
  while :; do busybox nc -l -p "$1" -e cat; done
elif command -v perl >/dev/null; then
  exec perl -MIO::Socket::INET -e '
    my $s = IO::Socket::INET->new(LocalPort => $ARGV[0], Listen => 16, ReuseAddr => 1) or die "$!";
    while (my $c = $s->accept) { while (sysread($c, my $b, 65536)) { syswrite($c, $b) } close $c }' "$1"
elif command -v python3 >/dev/null; then
  exec python3 -c '
import socket, sys
s = socket.create_server(("", int(sys.argv[1])))
while True:
    c = s.accept()[0]
    while b := c.recv(65536): c.sendall(b)
    c.close()' "$1"
else
  echo 'nothing here can listen' >&2; exit 9
fi`

/** POSIX `sh` with the usual small tools, busybox's are enough. */
export const posixCommands: Commands = {
  run: sh(`trap 'exit 0' TERM; ${untilTerm('', '1')}`),
  exit: (code) => sh('exit "$1"', String(code)),
  killSelf: sh('kill -9 $$; sleep 5'),
  lateTerm: sh(`trap 'sleep 1; echo finished; exit 7' TERM; echo ready; ${untilTerm('', '1')}`),
  ignoreTerm: sh(`trap '' TERM; echo ready; while :; do sleep 1; done`),
  ticks: sh(`trap 'exit 0' TERM; ${untilTerm('echo tick;', '0.1')}`),
  say: (out, err) => sh(`printf %s "$1"; printf %s "$2" >&2`, out, err),
  twoLines: sh('echo one; sleep 1; echo two'),
  show: (variable) => sh(`printf '%s\\n' "$${variable}"; pwd; id -u; uname -n`),
  write: (path, text) => sh('printf %s "$2" > "$1"', path, text),
  read: (path) => ['cat', path],
  cat: sh('cat; echo end >&2'),
  flood: (bytes) => ['head', '-c', String(bytes), '/dev/zero'],
  terminal: sh(`test -t 0 || { echo 'not a tty'; exit; }; while :; do stty size; sleep 0.1; done`),
  echoServer: (port) => sh(ECHO_SERVER, String(port)),
  missing: ['holdfast-no-such-program'],
}
