import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { finished, pipeline } from 'node:stream/promises'
import { extract, pack, type Pack } from 'tar-stream'
import { z } from 'zod'

/** Grows when an older Holdfast could not read what a newer one writes. */
const FORMAT = 1
const MANIFEST = 'manifest.json'
/** A manifest is a few hundred bytes; what is larger is none. */
const MANIFEST_MAX_BYTES = 1024 * 1024

/** What may be in a backup, in this order. Anything else makes it somebody else's file. */
export const ARCHIVED = ['holdfast.db', 'secret.key', 'cli.key'] as const
export type Archived = (typeof ARCHIVED)[number]

export interface ArchivedFile {
  readonly name: Archived
  readonly size: number
  readonly sha256: string
}

/** The first entry of a backup: what it holds, so that it is known before it is unpacked, and checked after. */
export interface Manifest {
  readonly format: typeof FORMAT
  /** The version of Holdfast that wrote it. */
  readonly holdfast: string
  /** RFC 3339. */
  readonly createdAt: string
  readonly installation: string
  readonly epoch: number
  readonly schemaVersion: number
  readonly engine: string | null
  readonly sandboxes: number
  readonly volumes: number
  readonly lastEventSeq: number
  readonly files: readonly ArchivedFile[]
}

const manifestSchema: z.ZodType<Manifest> = z.object({
  format: z.literal(FORMAT),
  holdfast: z.string(),
  createdAt: z.iso.datetime(),
  installation: z.string().min(1),
  epoch: z.int().min(0),
  schemaVersion: z.int().min(1),
  engine: z.string().nullable(),
  sandboxes: z.int().min(0),
  volumes: z.int().min(0),
  lastEventSeq: z.int().min(0),
  files: z.array(z.object({ name: z.enum(ARCHIVED), size: z.int().min(0), sha256: z.string() })).readonly(),
})

/** Why a file is no backup that can be used, as the end of a sentence. */
export class BadArchive extends Error {}

async function digest(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}

async function describe(dir: string, name: Archived): Promise<ArchivedFile> {
  const path = join(dir, name)
  return { name, size: (await stat(path)).size, sha256: await digest(path) }
}

async function addFile(tar: Pack, path: string, { name, size }: ArchivedFile): Promise<void> {
  const entry = tar.entry({ name, size, mode: 0o600 })
  await pipeline(createReadStream(path), entry)
}

async function fill(tar: Pack, dir: string, manifest: Manifest): Promise<void> {
  const text = `${JSON.stringify(manifest, null, 2)}\n`
  const mtime = new Date(manifest.createdAt)
  tar.entry({ name: MANIFEST, mode: 0o600, mtime }, text)
  for (const file of manifest.files) await addFile(tar, join(dir, file.name), file)
  tar.finalize()
}

/** Packs the files of `dir` into a new private file, on disk when this resolves. */
export async function writeArchive(
  path: string,
  dir: string,
  names: readonly Archived[],
  about: Omit<Manifest, 'format' | 'files'>,
): Promise<Manifest> {
  const files: ArchivedFile[] = []
  for (const name of names) files.push(await describe(dir, name))
  const manifest: Manifest = { format: FORMAT, ...about, files }
  const tar = pack()
  await Promise.all([
    fill(tar, dir, manifest),
    pipeline(tar, createWriteStream(path, { flags: 'wx', mode: 0o600 })),
  ])
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
  return manifest
}

async function textOf(stream: Readable, limit: number): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > limit) throw new BadArchive('its first entry is too large to be a manifest')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function parseManifest(text: string): Manifest {
  let raw: unknown
  try {
    raw = JSON.parse(text)
  } catch (error) {
    throw new BadArchive('its manifest is not JSON', { cause: error })
  }
  const format = (raw as { format?: unknown } | null)?.format
  if (typeof format === 'number' && format > FORMAT)
    throw new BadArchive(`a newer Holdfast wrote it (format ${format}); this one reads up to ${FORMAT}`)
  const parsed = manifestSchema.safeParse(raw)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  throw new BadArchive(`its manifest is not valid (${issue?.path.join('.')}: ${issue?.message})`)
}

/**
 * Unpacks a backup into the private directory `into`, and checks every byte of it against its manifest. Throws
 * `BadArchive` for what is no backup, is cut off or was changed.
 */
export async function readArchive(path: string, into: string): Promise<Manifest> {
  const entries = extract()
  const source = createReadStream(path)
  const reading = pipeline(source, entries)
  // Heard below, where the entries end; until then it must not count as unhandled.
  reading.catch(() => undefined)
  let manifest: Manifest | null = null
  const seen = new Set<string>()
  try {
    for await (const entry of entries) {
      const { name } = entry.header
      if (manifest === null) {
        if (name !== MANIFEST) throw new BadArchive('it does not begin with a manifest')
        manifest = parseManifest(await textOf(entry as unknown as Readable, MANIFEST_MAX_BYTES))
        continue
      }
      const expected = manifest.files.find((f) => f.name === name)
      if (expected === undefined || seen.has(name)) throw new BadArchive(`it holds an unexpected ${name}`)
      seen.add(name)
      // Before it is written: what is larger than it says could fill the disk that the state is on.
      if (entry.header.size !== expected.size) throw new BadArchive(`${name} in it is not what was written`)
      const target = createWriteStream(join(into, expected.name), { flags: 'wx', mode: 0o600 })
      entry.pipe(target)
      await finished(target)
    }
    await reading
  } catch (error) {
    source.destroy()
    if (error instanceof BadArchive || (error as NodeJS.ErrnoException).syscall !== undefined) throw error
    throw new BadArchive(error instanceof Error ? error.message : String(error), { cause: error })
  }
  if (manifest === null) throw new BadArchive('it is empty')
  for (const file of manifest.files) await check(into, file, seen)
  if (!seen.has('holdfast.db')) throw new BadArchive('it holds no database')
  return manifest
}

async function check(dir: string, file: ArchivedFile, seen: ReadonlySet<string>): Promise<void> {
  if (!seen.has(file.name)) throw new BadArchive(`${file.name} is missing from it; it was cut off`)
  const found = await describe(dir, file.name)
  if (found.size !== file.size || found.sha256 !== file.sha256)
    throw new BadArchive(`${file.name} in it is not what was written`)
}
