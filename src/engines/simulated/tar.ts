import { posix } from 'node:path'
import { Readable } from 'node:stream'
import { extract, type Header, type Pack, pack } from 'tar-stream'
import { EngineError } from '../../model/facts.ts'
import type { FileNode, FileView } from './files.ts'

/** A tar stream of what is at `path`, its base name first. */
export function packPath(files: FileView, path: string): Readable {
  const node = files.lstat(path)
  if (node === null) throw new EngineError('not-found', 'none', `there is no ${path}`)
  const tar = pack()
  addNode(tar, files, path, posix.basename(posix.normalize(path)) || '.', node)
  tar.finalize()
  return Readable.from(tar)
}

function addNode(tar: Pack, files: FileView, path: string, name: string, node: FileNode): void {
  if (node.type === 'file') tar.entry({ name, mode: node.mode }, Buffer.from(node.data))
  if (node.type === 'symlink') tar.entry({ name, mode: node.mode, type: 'symlink', linkname: node.target })
  if (node.type !== 'directory') return
  tar.entry({ name: `${name}/`, mode: node.mode, type: 'directory' })
  for (const child of files.list(path)) {
    const at = posix.join(path, child)
    const found = files.lstat(at)
    if (found !== null) addNode(tar, files, at, `${name}/${child}`, found)
  }
}

/** Unpacks into the directory `path`. What was unpacked before an error stays, as with a real engine. */
export async function unpackInto(files: FileView, path: string, tar: Readable): Promise<void> {
  if (files.stat(path)?.type !== 'directory') {
    tar.destroy()
    throw new EngineError('not-found', 'none', `there is no directory ${path}`)
  }
  const entries = extract()
  tar.once('error', (error) => entries.destroy(error))
  tar.pipe(entries)
  for await (const entry of entries) {
    const chunks: Uint8Array[] = []
    for await (const chunk of entry as AsyncIterable<Uint8Array>) chunks.push(chunk)
    const node = toNode(entry.header, Buffer.concat(chunks))
    const at = posix.join(path, posix.normalize(`/${entry.header.name}`).replace(/\/$/, ''))
    if (node !== null && at !== path) files.write(at, node)
  }
}

/** Null for what the simulation has no use for. */
function toNode({ type, mode, linkname }: Header, data: Uint8Array): FileNode | null {
  if (type === 'directory') return { type, mode: mode & 0o7777 }
  if (type === 'symlink') return { type, mode: 0o777, target: linkname }
  return type === 'file' ? { type, mode: mode & 0o7777, data } : null
}
