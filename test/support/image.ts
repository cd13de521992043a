import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import { pack, type Pack } from 'tar-stream'
import { rawDocker } from './docker-http.ts'

/** A `FROM scratch` image of Debian's busybox-static: `sh` and the usual tools, no registry needed. */
export const TEST_IMAGE = 'holdfast-test:1'
/** The same, declaring `/data` as `VOLUME`. */
export const TEST_VOLUME_IMAGE = 'holdfast-test-volume:1'
export const TEST_VOLUME_PATH = '/data'
/** Root's files for seeding: `hello.txt`, `run.sh`, `link`, `sub/deep.txt`. `/sandbox` has `seed.txt` and `link` of user 1000. */
export const TEST_SEED_PATH = '/seed'
export const TEST_USER = 1000

/** Grows with each change of what is in the images. */
const CONTENT_VERSION = '1'
const CONTENT_LABEL = 'holdfast.dev/test-image'
const BUSYBOX = ['/bin/busybox', '/usr/bin/busybox'].find((path) => existsSync(path))

const PASSWD = `root:x:0:0:root:/root:/bin/sh\nuser:x:${TEST_USER}:${TEST_USER}:user:/sandbox:/bin/sh\n`
const GROUP = `root:x:0:\nuser:x:${TEST_USER}:\n`

function rootfs(busybox: string): Pack {
  const tar = pack()
  const own = { uid: TEST_USER, gid: TEST_USER }
  const dir = (name: string, mode = 0o755): void => void tar.entry({ name, type: 'directory', mode })
  for (const name of ['bin', 'etc', 'proc', 'dev', 'sys', 'seed', 'seed/sub', 'data']) dir(name)
  dir('root', 0o700)
  dir('tmp', 0o1777)
  dir('sandbox', 0o777)
  tar.entry({ name: 'bin/busybox', mode: 0o755 }, readFileSync(busybox))
  for (const applet of execFileSync(busybox, ['--list'], { encoding: 'utf8' }).trim().split('\n'))
    if (applet !== 'busybox') tar.entry({ name: `bin/${applet}`, type: 'symlink', linkname: 'busybox' })
  tar.entry({ name: 'etc/passwd', mode: 0o644 }, PASSWD)
  tar.entry({ name: 'etc/group', mode: 0o644 }, GROUP)
  tar.entry({ name: 'seed/hello.txt', mode: 0o640 }, 'hello\n')
  tar.entry({ name: 'seed/run.sh', mode: 0o755 }, '#!/bin/sh\nexit 0\n')
  tar.entry({ name: 'seed/link', type: 'symlink', linkname: 'hello.txt' })
  tar.entry({ name: 'seed/sub/deep.txt', mode: 0o644 }, 'deep\n')
  tar.entry({ name: 'sandbox/seed.txt', mode: 0o644, ...own }, 'seed\n')
  tar.entry({ name: 'sandbox/link', type: 'symlink', linkname: 'seed.txt', ...own })
  tar.finalize()
  return tar
}

/** Makes both test images on the engine at this socket, unless it has them in this very form. */
export async function ensureTestImage(socketPath: string): Promise<string> {
  await ensureImage(socketPath, TEST_IMAGE, [])
  await ensureImage(socketPath, TEST_VOLUME_IMAGE, [`VOLUME ${TEST_VOLUME_PATH}`])
  return TEST_IMAGE
}

/** Imports the root file system under this name with these Dockerfile instructions. */
export async function ensureImage(
  socketPath: string,
  image: string,
  instructions: readonly string[],
): Promise<void> {
  if (BUSYBOX === undefined)
    throw new Error('The test image needs a static busybox: apt-get install busybox-static')
  const content = createHash('sha256')
    .update(readFileSync(BUSYBOX))
    .update([CONTENT_VERSION, ...instructions].join('\n'))
    .digest('hex')
  const found = await rawDocker(socketPath, 'GET', `/images/${image}/json`)
  if (found.status === 200 && found.text.includes(content)) return
  const [repo = '', tag = ''] = image.split(':')
  const query = new URLSearchParams({ fromSrc: '-', repo, tag })
  const all = [
    'ENV PATH=/bin',
    'CMD ["tail","-f","/dev/null"]',
    `LABEL ${CONTENT_LABEL}=${content}`,
    ...instructions,
  ]
  for (const change of all) query.append('changes', change)
  const { status, text } = await rawDocker(
    socketPath,
    'POST',
    `/images/create?${query.toString()}`,
    Readable.from(rootfs(BUSYBOX)),
  )
  if (status >= 300 || text.includes('"error"'))
    throw new Error(`importing ${image} failed: ${status} ${text}`)
  // The one that it replaces would stay without a name; while something uses it, it does.
  if (found.status === 200)
    await rawDocker(socketPath, 'DELETE', `/images/${(JSON.parse(found.text) as { Id: string }).Id}`)
}
