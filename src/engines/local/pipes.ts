import { closeSync, constants, openSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { runTool } from './files.ts'

/**
 * Real pipes to a child. Node's own `pipe` is a socket, and a program cannot open a socket through /dev/stdin or
 * /dev/stderr, which scripts do every day.
 */
export interface Pipes {
  /** The child's ends, for `stdio`; closed by `handed`. */
  readonly child: readonly [number | 'ignore', number, number]
  readonly stdin: Socket | null
  readonly stdout: Socket
  readonly stderr: Socket
  /** To be called when the child has its ends, or will never have them. */
  handed(): void
}

const { O_RDONLY, O_WRONLY, O_RDWR, O_NONBLOCK } = constants

export async function openPipes(making: string, withInput: boolean): Promise<Pipes> {
  const dir = await mkdtemp(join(making, 'pipes-'))
  const open: number[] = []
  try {
    const names = ['0', '1', '2'].slice(withInput ? 0 : 1).map((n) => join(dir, n))
    const made = await runTool('mkfifo', ['-m', '600', ...names])
    if (made.code !== 0) throw new Error(`no pipes: ${made.stderr}`)
    const pair = (name: string, ours: number, theirs: number): { ours: number; theirs: number } => {
      const path = join(dir, name)
      // Held open both ways for a moment, or either of the two opens would wait for the other.
      const holder = openSync(path, O_RDWR | O_NONBLOCK)
      try {
        const a = openSync(path, ours | O_NONBLOCK)
        open.push(a)
        const b = openSync(path, theirs)
        open.push(b)
        return { ours: a, theirs: b }
      } finally {
        closeSync(holder)
      }
    }
    const input = withInput ? pair('0', O_WRONLY, O_RDONLY) : null
    const output = pair('1', O_RDONLY, O_WRONLY)
    const errors = pair('2', O_RDONLY, O_WRONLY)
    const theirs = [input?.theirs, output.theirs, errors.theirs].filter((fd) => fd !== undefined)
    let given = false
    return {
      child: [input?.theirs ?? 'ignore', output.theirs, errors.theirs],
      stdin: input === null ? null : new Socket({ fd: input.ours, readable: false, writable: true }),
      stdout: new Socket({ fd: output.ours, readable: true, writable: false }),
      stderr: new Socket({ fd: errors.ours, readable: true, writable: false }),
      handed() {
        if (given) return
        given = true
        for (const fd of theirs) closeSync(fd)
      },
    }
  } catch (error) {
    for (const fd of open) closeSync(fd)
    throw error
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}
