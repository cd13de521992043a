import { EngineError, type ImageFacts } from '../../model/facts.ts'
import type { Call } from '../engine.ts'
import { type Api, budget } from './api.ts'
import { jsonLines } from './lines.ts'
import type { ImageInspect } from './types.ts'

export interface Images {
  /** The engine's own words, for what facts do not tell. Null when it is not present. */
  readonly look: (image: string, call: Call) => Promise<ImageInspect | null>
  readonly inspect: (image: string, call: Call) => Promise<ImageFacts | null>
  readonly pull: (image: string, progress: (line: string) => void, call: Call) => Promise<void>
}

export const list = (value: readonly string[] | string | null | undefined): readonly string[] =>
  typeof value === 'string' ? [value] : (value ?? [])

/** The engine takes slashes and colons in this part of a path as they are. */
const imagePath = (image: string): string =>
  encodeURIComponent(image).replaceAll('%2F', '/').replaceAll('%3A', ':').replaceAll('%40', '@')

export function createImages(api: Api): Images {
  const pulls = new Map<string, SharedPull>()
  const look = async (image: string, call: Call): Promise<ImageInspect | null> => {
    const what = `inspecting image ${image}`
    const answer = await api.ask({ what, method: 'GET', path: `/images/${imagePath(image)}/json`, call })
    if (answer.ok) return answer.json as ImageInspect
    if (answer.refusal.status === 404 && /no such image/i.test(answer.refusal.message ?? '')) return null
    throw answer.error
  }
  return {
    look,

    async inspect(image, call) {
      const found = await look(image, call)
      if (found === null) return null
      const { Id: id, Config: config } = found
      return {
        id,
        entrypoint: list(config?.Entrypoint),
        command: list(config?.Cmd),
        volumes: Object.keys(config?.Volumes ?? {}),
        user: config?.User ?? '',
      }
    },

    async pull(image, progress, call) {
      if (call.signal?.aborted === true)
        throw new EngineError('aborted', 'none', `pulling image ${image} was aborted`)
      let shared = pulls.get(image)
      if (shared === undefined) {
        shared = beginPull(api, image, call, () => pulls.delete(image))
        pulls.set(image, shared)
      }
      return joinPull(api, image, shared, progress, call)
    },
  }
}

/** One pull that several callers wait for; it is given up when the last of them leaves. */
interface SharedPull {
  readonly done: Promise<void>
  readonly listeners: Set<(line: string) => void>
  readonly stop: AbortController
}

/** Beyond any caller's patience: each caller's own limit ends its wait, and the last one ends the pull. Milliseconds. */
const PULL_LIMIT_MS = 6 * 60 * 60 * 1000

function beginPull(api: Api, image: string, call: Call, over: () => void): SharedPull {
  const listeners = new Set<(line: string) => void>()
  const stop = new AbortController()
  const tell = (line: string): void => {
    for (const listener of listeners) listener(line)
  }
  const fence = call.fence === undefined ? {} : { fence: call.fence }
  const done = pullImage(api, image, tell, { limitMs: PULL_LIMIT_MS, signal: stop.signal, ...fence }).finally(
    over,
  )
  // Each caller hears the failure through its own promise.
  done.catch(() => undefined)
  return { done, listeners, stop }
}

async function joinPull(
  api: Api,
  image: string,
  shared: SharedPull,
  progress: (line: string) => void,
  call: Call,
): Promise<void> {
  const listener = (line: string): void => progress(line)
  shared.listeners.add(listener)
  try {
    await new Promise<void>((resolve, reject) => {
      const off = api.clock.after(call.limitMs, () =>
        end(() =>
          reject(
            new EngineError(
              'timeout',
              'unknown',
              `pulling image ${image} was not done after ${call.limitMs} ms`,
            ),
          ),
        ),
      )
      const onAbort = (): void =>
        end(() => reject(new EngineError('aborted', 'unknown', `pulling image ${image} was aborted`)))
      const end = (then: () => void): void => {
        off()
        call.signal?.removeEventListener('abort', onAbort)
        then()
      }
      call.signal?.addEventListener('abort', onAbort, { once: true })
      shared.done.then(
        () => end(resolve),
        (error: unknown) => end(() => reject(error instanceof Error ? error : new Error(String(error)))),
      )
    })
  } finally {
    shared.listeners.delete(listener)
    if (shared.listeners.size === 0) shared.stop.abort()
  }
}

interface PullMessage {
  readonly status?: string
  readonly id?: string
  readonly progressDetail?: { readonly current?: number; readonly total?: number }
  readonly error?: string
}

async function pullImage(api: Api, image: string, tell: (line: string) => void, call: Call): Promise<void> {
  const what = `pulling image ${image}`
  const { name, tag } = splitImage(image)
  const rest = budget(api.clock, call)
  const answer = api.stream({
    what,
    method: 'POST',
    path: '/images/create',
    query: { fromImage: name, tag },
    mutation: true,
    call: rest(),
  })
  const { body } = await answer.catch((error: unknown) => {
    throw missing(error)
  })
  const say = progressLines(tell)
  for await (const line of jsonLines(what, body)) {
    const message = line as PullMessage
    if (message.error !== undefined) throw pullError(what, message.error)
    say(message)
  }
}

/** Everything that the engine or a registry answers instead of the image comes to this: the image is not to be had now. */
function pullError(what: string, text: string): EngineError {
  const full = /no space left on device|disk quota exceeded/i.test(text)
  return new EngineError(full ? 'disk-full' : 'image-missing', 'none', `${what}: ${text}`)
}

function missing(error: unknown): unknown {
  if (!(error instanceof EngineError) || !['not-found', 'denied', 'failed'].includes(error.kind)) return error
  return new EngineError('image-missing', 'none', error.message, { cause: error })
}

/** Without a tag the engine would pull every tag there is. */
export function splitImage(image: string): { readonly name: string; readonly tag: string } {
  const at = image.indexOf('@')
  const named = at < 0 ? image : image.slice(0, at)
  const colon = named.lastIndexOf(':')
  const tagged = colon > named.lastIndexOf('/')
  const name = tagged ? named.slice(0, colon) : named
  if (at >= 0) return { name, tag: image.slice(at + 1) }
  return { name, tag: tagged ? named.slice(colon + 1) : 'latest' }
}

/** A layer's progress in steps that a person can follow: each new state, and each quarter of a transfer. */
function progressLines(tell: (line: string) => void): (message: PullMessage) => void {
  const last = new Map<string, string>()
  return ({ status = '', id = '', progressDetail }) => {
    const { current = 0, total = 0 } = progressDetail ?? {}
    const quarter = total > 0 ? ` ${Math.floor((4 * current) / total) * 25} %` : ''
    const line = `${status}${quarter}`
    if (status === '' || last.get(id) === line) return
    last.set(id, line)
    tell(id === '' ? line : `${id}: ${line}`)
  }
}
