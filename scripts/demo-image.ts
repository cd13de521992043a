import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { request } from 'node:http'
import { createReadStream } from 'node:fs'

/** The image that the demo makes on Docker, so that it needs no registry; removed at its end. */
export const DEMO_IMAGE = 'holdfast-demo:1'

/** What the demo's workloads run: found on every Linux, copied with the libraries they load. */
const PROGRAMS = [
  'sh',
  'cat',
  'sleep',
  'date',
  'dd',
  'sha256sum',
  'ls',
  'mkdir',
  'rm',
  'head',
  'tail',
  'wc',
  'printf',
  'env',
  'id',
  'hostname',
  'setsid',
  'kill',
]

const SCRIPT = `set -e
mkdir -p "$1/bin" "$1/tmp" "$1/etc" "$1/proc" "$1/dev"
chmod 1777 "$1/tmp"
echo 'root:x:0:0:root:/:/bin/sh' > "$1/etc/passwd"
echo 'root:x:0:' > "$1/etc/group"
dest=$1; shift
for p in "$@"; do
  f=$(command -v "$p") || continue
  case $f in /*) ;; *) f=/bin/$p; [ -x "$f" ] || f=/usr/bin/$p; [ -x "$f" ] || continue;; esac
  cp -L "$f" "$dest/bin/$p"
  ldd "$f" 2>/dev/null | grep -o '/[^ )]*' | while read -r lib; do
    mkdir -p "$dest\${lib%/*}"
    [ -e "$dest$lib" ] || cp -L "$lib" "$dest$lib"
  done
done
tar -C "$dest" -cf "$dest.tar" .`

/** Imports an image of a few of this machine's own programs. Resolves with its name. */
export async function makeDemoImage(socketPath: string): Promise<string> {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-demo-image-'))
  const root = join(dir, 'root')
  try {
    execFileSync('sh', ['-c', SCRIPT, 'sh', root, ...PROGRAMS], { stdio: ['ignore', 'ignore', 'inherit'] })
    const [repo, tag] = DEMO_IMAGE.split(':')
    const changes = `&changes=${encodeURIComponent('ENV PATH=/bin:/usr/bin')}`
    await call(
      socketPath,
      'POST',
      `/images/create?fromSrc=-&repo=${repo}&tag=${tag}${changes}`,
      `${root}.tar`,
    )
    return DEMO_IMAGE
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

export async function removeDemoImage(socketPath: string): Promise<void> {
  await call(socketPath, 'DELETE', `/images/${DEMO_IMAGE}?force=true`)
}

function call(socketPath: string, method: string, path: string, bodyFile?: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const req = request(
      { socketPath, method, path, headers: { 'content-type': 'application/x-tar' }, timeout: 60_000 },
      (res) => {
        let text = ''
        res.on('data', (chunk: Buffer) => (text += chunk.toString()))
        res.on('end', () => {
          const failed = (res.statusCode ?? 500) >= 400 || text.includes('"error"')
          if (failed) reject(new Error(`Docker answered ${res.statusCode} to ${method} ${path}: ${text}`))
          else resolve()
        })
      },
    )
    req.on('error', reject)
    req.on('timeout', () => req.destroy(new Error(`no answer from Docker to ${method} ${path} within 60 s`)))
    if (bodyFile === undefined) req.end()
    else createReadStream(bodyFile).pipe(req)
  })
}
