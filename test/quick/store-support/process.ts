import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** What a test made outside this process, removed also after a failure. */
export interface Scratch {
  /** A directory that does not exist yet, in one that does. */
  dir(): string
  child(mode: 'hold' | 'write', dir: string): Child
  /** Called at the end, last first. */
  later(fn: () => unknown): void
  clean(): Promise<void>
}

export interface Child {
  readonly pid: number
  /** Lines so far. */
  readonly lines: readonly string[]
  /** Resolves at the `count`th line; rejects when the process ends before. */
  seen(count: number): Promise<void>
  kill(): Promise<void>
}

const CHILD = fileURLToPath(new URL('child.ts', import.meta.url))

export function scratch(): Scratch {
  const cleanups: (() => unknown)[] = []
  return {
    dir: () => {
      const parent = mkdtempSync(join(tmpdir(), 'holdfast-store-'))
      cleanups.push(() => rmSync(parent, { recursive: true, force: true }))
      return join(parent, 'state')
    },
    child: (mode, dir) => {
      const child = startChild(mode, dir)
      cleanups.push(() => child.kill())
      return child
    },
    later: (fn) => {
      cleanups.push(fn)
    },
    clean: async () => {
      for (const fn of cleanups.splice(0).toReversed()) await fn()
    },
  }
}

function startChild(mode: string, dir: string): Child {
  const child: ChildProcess = spawn(process.execPath, [CHILD, mode, dir], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const lines: string[] = []
  let rest = ''
  let errors = ''
  let ended = false
  let notify: () => void = () => undefined
  const exited = new Promise<void>((resolve) => {
    child.once('close', () => {
      ended = true
      notify()
      resolve()
    })
  })
  child.stderr?.on('data', (chunk: Buffer) => {
    errors += chunk.toString()
  })
  child.stdout?.on('data', (chunk: Buffer) => {
    const parts = (rest + chunk.toString()).split('\n')
    rest = parts.pop() ?? ''
    lines.push(...parts)
    notify()
  })
  return {
    pid: child.pid ?? 0,
    lines,
    seen: async (count) => {
      while (lines.length < count) {
        if (ended) throw new Error(`the process ended after ${lines.length} lines: ${errors}`)
        await new Promise<void>((resolve) => {
          notify = resolve
        })
      }
    },
    kill: async () => {
      if (!ended) child.kill('SIGKILL')
      await exited
    },
  }
}
