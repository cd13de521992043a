import { stat } from 'node:fs/promises'
import { basename, dirname, posix, resolve } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Client } from '@holdfast/client'
import type { Context, Define } from '../context.ts'
import { bare, meansContents, meansDirectory, parsePlace, type Place } from '../copy/paths.ts'
import { CliError, EXIT } from '../errors.ts'
import { examples } from '../lifecycle.ts'
import { UsageError } from '../parse.ts'
import { resolveRef } from '../refs.ts'
import { bytes } from '../render.ts'

interface CpOptions {
  readonly archive?: boolean
}

type SandboxPlace = Extract<Place, { kind: 'sandbox' }>
type OtherPlace = Exclude<Place, SandboxPlace>

export const define: Define = (command, run) => {
  command
    .argument('<source>', 'SANDBOX:/path, a local path, or - for a tar stream on stdin')
    .argument('<target>', 'SANDBOX:/path, a local path, or - for a tar stream on stdout')
    .option('-a, --archive', 'keep the numeric owner of what is copied in')
    .addHelpText(
      'after',
      examples([
        'holdfast cp ./site web:/srv    # /srv/site if /srv is a directory, else /srv',
        'holdfast cp ./site/. web:/srv    # what is in it',
        'holdfast cp web:/sandbox/out.csv .',
        'holdfast cp web:/sandbox - | gzip > backup.tgz',
      ]),
    )
    .addHelpText(
      'after',
      'The rules are those of docker cp. Works on a stopped sandbox too. Nothing is written outside the target.\n',
    )
    .action((source: string, target: string, options: CpOptions) =>
      run(command, (context) => copy(context, parsePlace(source), parsePlace(target), options)),
    )
}

async function copy(context: Context, source: Place, target: Place, options: CpOptions): Promise<number> {
  if (source.kind === 'sandbox' && target.kind !== 'sandbox') {
    const client = await context.client()
    return copyOut(context, client, await resolveRef(client, source.ref), source, target)
  }
  if (source.kind !== 'sandbox' && target.kind === 'sandbox') {
    const client = await context.client()
    return copyIn(context, client, await resolveRef(client, target.ref), source, target, options)
  }
  throw new UsageError('One side of a copy is a sandbox, and only one', 'holdfast cp SANDBOX:/path ./here')
}

async function localKind(path: string): Promise<'directory' | 'file' | 'absent'> {
  try {
    return (await stat(path)).isDirectory() ? 'directory' : 'file'
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return 'absent'
    throw error
  }
}

const noSuch = (path: string): CliError =>
  new CliError(EXIT.notFound, `There is no ${path}. Nothing was copied.`)

async function copyOut(
  context: Context,
  client: Client,
  id: string,
  source: SandboxPlace,
  target: OtherPlace,
): Promise<number> {
  const path = bare(source.path)
  const place = target.kind === 'local' ? await whereOut(target.path, source.path) : null
  const tar = Readable.fromWeb(
    (await client.sandboxes.download(id, path, context.signal)) as Parameters<typeof Readable.fromWeb>[0],
  )
  if (place === null) {
    await pipeline(tar, context.io.stdout, { end: false })
    return 0
  }
  const { unpack } = await import('../copy/unpack.ts')
  const done = await unpack(tar, place)
  for (const name of done.skipped) context.note(`holdfast: left out ${name}`)
  context.progress.update('copied', `${done.files} files, ${bytes(done.bytes)}`)
  return 0
}

/** Where the archive's root goes on this machine, by the rules of `docker cp`. */
async function whereOut(
  path: string,
  from: string,
): Promise<{ within: string; rootName: string; rootMust?: 'be a directory' | 'be no directory' }> {
  const contents = meansContents(from)
  const kind = await localKind(path)
  if (kind === 'directory') {
    return {
      within: resolve(path),
      rootName: contents ? '' : posix.basename(bare(from)),
      ...(contents ? { rootMust: 'be a directory' as const } : {}),
    }
  }
  const plain = resolve(bare(path))
  const within = dirname(plain)
  if ((await localKind(within)) !== 'directory') throw noSuch(`directory ${within} here`)
  if (kind === 'file') {
    if (meansDirectory(path))
      throw new CliError(EXIT.failed, `${path} is not a directory. Nothing was copied.`)
    return { within, rootName: basename(plain), rootMust: 'be no directory' }
  }
  return {
    within,
    rootName: basename(plain),
    ...(meansDirectory(path) || contents ? { rootMust: 'be a directory' as const } : {}),
  }
}

async function copyIn(
  context: Context,
  client: Client,
  id: string,
  source: OtherPlace,
  target: SandboxPlace,
  options: CpOptions,
): Promise<number> {
  const upload = (dir: string, tar: Readable): Promise<void> =>
    client.sandboxes.upload(id, dir, Readable.toWeb(tar) as ReadableStream<Uint8Array>, context.signal)
  const { remoteKind } = await import('../copy/remote.ts')
  const to = bare(target.path)
  const kind = await remoteKind(client, id, to)
  if (source.kind === 'stream') {
    if (kind !== 'directory') throw noSuch(`directory ${to} in ${target.ref}`)
    await upload(to, context.io.stdin)
    return 0
  }
  const { dir, name } = await whereIn(client, id, source.path, target, kind, remoteKind)
  const { packPath } = await import('../copy/pack.ts')
  let files = 0
  let size = 0
  // Kept: a file that cannot be read breaks the upload, and it is the reason that is worth telling.
  let cause: Error | null = null
  const tar = packPath(resolve(bare(source.path)), name, {
    keepOwner: options.archive === true,
    onFile: (count) => {
      files += 1
      size += count
      context.progress.update('copied', `${files} files, ${bytes(size)}`)
    },
    onSkip: (path, why) => context.note(`holdfast: left out ${path}: it ${why}`),
  })
  tar.on('error', (error) => {
    cause ??= error
  })
  await upload(dir, tar).catch((error: unknown) => {
    throw cause ?? error
  })
  return 0
}

/** The directory to unpack in and the root's name in the archive, by the rules of `docker cp`; an empty name: contents only. */
async function whereIn(
  client: Client,
  id: string,
  from: string,
  target: SandboxPlace,
  kind: 'directory' | 'file' | 'absent',
  remoteKind: (client: Client, id: string, path: string) => Promise<'directory' | 'file' | 'absent'>,
): Promise<{ dir: string; name: string }> {
  const local = await localKind(from)
  if (local === 'absent') throw noSuch(`${from} here`)
  const to = bare(target.path)
  if (kind === 'directory') {
    return { dir: to, name: meansContents(from) ? '' : basename(resolve(bare(from))) }
  }
  if (kind === 'file' && local === 'directory')
    throw new CliError(
      EXIT.failed,
      `${to} in ${target.ref} is a file, and ${from} is a directory. Nothing was copied.`,
    )
  if (meansDirectory(target.path) && (kind === 'file' || local === 'file'))
    throw noSuch(`directory ${to} in ${target.ref}`)
  const dir = posix.dirname(to)
  if ((await remoteKind(client, id, dir)) !== 'directory') throw noSuch(`directory ${dir} in ${target.ref}`)
  return { dir, name: posix.basename(to) }
}
