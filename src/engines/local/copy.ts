import { once } from 'node:events'
import { posix } from 'node:path'
import { PassThrough, type Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { EngineError } from '../../model/facts.ts'
import type { ExecStream } from '../engine.ts'
import { messageOf, refuse } from './errors.ts'

/** Runs `tar` where the instance's tree is the root. */
export type RunTar = (args: readonly string[], stdin: boolean) => Promise<ExecStream>

const MISSING = /no such file|cannot stat|can't stat|can't change directory|not a directory/i
/** A path's complaint is short; a hundred thousand files' complaints are not kept. */
const COMPLAINT_BYTES = 4096
/** GNU tar: some files changed while they were read. The archive is whole. */
const TAR_CHANGED = 1

async function complaint(stream: Readable): Promise<string> {
  let text = ''
  for await (const chunk of stream) if (text.length < COMPLAINT_BYTES) text += String(chunk)
  return text.trim().slice(0, COMPLAINT_BYTES)
}

function failure(what: string, said: string, code: number | null, started: boolean): EngineError {
  if (!started && MISSING.test(said)) return refuse('not-found', `${what}: ${said}`)
  if (!started && (code === 127 || code === 126))
    return refuse('unsupported', `${what} needs tar in the image: ${said}`)
  return new EngineError('failed', 'unknown', `${what}: tar ended with ${code}: ${said}`)
}

function split(path: string): { parent: string; name: string } {
  const clean = posix.resolve('/', path)
  return clean === '/'
    ? { parent: '/', name: '.' }
    : { parent: posix.dirname(clean), name: posix.basename(clean) }
}

export async function copyOutBy(run: RunTar, path: string): Promise<Readable> {
  const { parent, name } = split(path)
  const stream = await run(['-C', parent, '-cf', '-', '--', name], false)
  const said = complaint(stream.stderr).catch(messageOf)
  const what = `the copy out of ${path}`
  // A missing path makes an archive without entries: zeros, or nothing at all.
  const first: unknown =
    stream.stdout.read() ??
    (await Promise.race([once(stream.stdout, 'readable'), once(stream.stdout, 'end')]).then(() =>
      stream.stdout.read(),
    ))
  if (!Buffer.isBuffer(first) || first[0] === 0) {
    stream.stdout.resume()
    throw failure(what, await said, await stream.exit, false)
  }
  const out = new PassThrough()
  out.write(first)
  const finish = async (): Promise<void> => {
    await pipeline(stream.stdout, out, { end: false })
    const code = await stream.exit
    if (code === 0 || code === TAR_CHANGED) out.end()
    else out.destroy(failure(what, await said, code, true))
  }
  out.once('close', () => stream.destroy())
  finish().catch((error: unknown) => out.destroy(error instanceof Error ? error : new Error(String(error))))
  return out
}

export async function copyInBy(run: RunTar, path: string, tar: Readable, keepOwners: boolean): Promise<void> {
  const stream = await run(['-C', posix.resolve('/', path), ...(keepOwners ? [] : ['-o']), '-xpf', '-'], true)
  stream.stdout.resume()
  const said = complaint(stream.stderr).catch(messageOf)
  let wrote = false
  const feed = async (): Promise<void> => {
    for await (const chunk of tar) {
      await stream.write(chunk as Uint8Array)
      wrote = true
    }
  }
  // Tar may stop reading before the end of a padded archive, or because it failed: its status tells which.
  let broken: unknown = null
  const feeding = feed().catch((error: unknown) => (broken = error))
  const over = stream.exit.then(() => 'over' as const)
  await Promise.race([feeding, over])
  if (broken !== null && (broken as NodeJS.ErrnoException).code !== 'EPIPE') {
    stream.destroy()
    throw new EngineError('failed', 'unknown', `the copy into ${path}: ${messageOf(broken)}`, {
      cause: broken,
    })
  }
  stream.end()
  const code = await stream.exit
  tar.destroy()
  if (code !== 0) {
    const text = await said
    throw failure(`the copy into ${path}`, text, code, wrote && !MISSING.test(text))
  }
}
