#!/usr/bin/env node
import { spawn } from 'node:child_process'
import module, { createRequire } from 'node:module'
import { setFlagsFromString } from 'node:v8'
import { homedir } from 'node:os'
import { join } from 'node:path'

/** Needed: `node:sqlite` and what the sources are written in. This file itself must run on anything older. */
const NODE_MAJOR = 24

/** The runtime that comes as an optional dependency, for machines whose own is older; null when it is not installed. */
function bundledNode(): string | null {
  try {
    const require = createRequire(import.meta.url)
    return require.resolve(`node-${process.platform}-${process.arch}/bin/node`)
  } catch (error) {
    // Not installed, or none exists for this platform.
    void error
    return null
  }
}

/** Starts this program again under another node and ends as that one does. */
function runUnder(node: string, args: readonly string[]): void {
  const child = spawn(node, args, { stdio: 'inherit' })
  // Ctrl-C in a terminal reaches the child by itself; a signal sent to this process alone is passed on.
  process.on('SIGINT', () => {
    if (process.stdin.isTTY !== true) child.kill('SIGINT')
  })
  process.on('SIGTERM', () => child.kill('SIGTERM'))
  process.on('SIGHUP', () => child.kill('SIGHUP'))
  child.on('error', (error) => {
    process.stderr.write(`holdfast: ${node} could not be started: ${error.message}\n`)
    process.exitCode = 1
  })
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code ?? 1)
    process.removeAllListeners(signal)
    process.kill(process.pid, signal)
  })
}

/** Where pipes are asynchronous, an exit would cut off what is still to be written. */
function flushed(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    if (stream.writableLength === 0) resolve()
    else stream.write('', () => resolve())
  })
}

async function start(): Promise<void> {
  if (Number(process.versions.node.split('.')[0]) >= NODE_MAJOR) {
    // In a directory of the user's own: the default lies in /tmp, where others could leave code for us to run.
    module.enableCompileCache(
      join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'holdfast', 'node'),
    )
    // A server lives long and mostly idles: young memory that grew during the start would never be given back.
    if (process.argv[2] === 'server') setFlagsFromString('--semi-space-growth-factor=1')
    const { main } = await import('./cli.ts')
    const code = await main(process.argv.slice(2))
    await flushed(process.stdout)
    process.exit(code)
  }
  const node = bundledNode()
  if (node !== null) {
    runUnder(node, process.argv.slice(1))
    return
  }
  process.stderr.write(
    `holdfast: Node ${NODE_MAJOR} or newer is needed, and this is ${process.version}.\n` +
      `  Install it from https://nodejs.org, or install holdfast with its optional dependencies: npm install --include=optional holdfast\n`,
  )
  process.exitCode = 1
}

await start()
