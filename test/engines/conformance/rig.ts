import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { expect } from 'vitest'
import type {
  Call,
  CreateInstance,
  CreateVolume,
  Engine,
  ExecRequest,
  ExecStream,
} from '../../../src/engines/engine.ts'
import { EngineError, type EngineErrorKind, type InstanceFacts } from '../../../src/model/facts.ts'
import { LABEL } from '../../../src/model/labels.ts'
import { type Commands, posixCommands, type Subject, type Traits } from './subject.ts'

/** Long enough for a slow machine, short enough to name the call that hangs. */
const CALL_LIMIT_MS = 60_000
export const TEST_RUN_LABEL = 'holdfast.dev/test-run'

export interface Finished {
  readonly code: number | null
  readonly stdout: Buffer
  readonly stderr: Buffer
}

/** One run of the suite: names, labels and the removal of everything that was made under them. */
export interface Rig {
  /** Known before the subject is open, when tests are registered. */
  readonly traits: Traits
  readonly subject: Subject
  readonly engine: Engine
  readonly commands: Commands
  readonly scratch: string
  call(over?: Partial<Call>): Call
  name(prefix: string): string
  labels(): Record<string, string>
  /** A request for an instance that runs until it is told to stop. */
  request(over?: Partial<CreateInstance>): CreateInstance
  create(over?: Partial<CreateInstance>): Promise<{ id: string; name: string }>
  running(over?: Partial<CreateInstance>): Promise<{ id: string; name: string }>
  volume(over?: Partial<CreateVolume>): Promise<string>
  /** Remembers a volume that the engine may make by itself, for removal. */
  watchVolume(name: string): void
  facts(nameOrId: string): Promise<InstanceFacts>
  /** Waits until the instance has stopped. */
  ended(id: string): Promise<InstanceFacts>
  exec(id: string, command: readonly string[], over?: Partial<ExecRequest>): Promise<Finished>
  logs(id: string): Promise<{ stdout: string; stderr: string }>
  /** Waits until the instance's stdout holds `text`. */
  said(id: string, text: string): Promise<void>
}

export interface OwnedRig extends Rig {
  open(factory: () => Promise<Subject>): Promise<void>
  /** Removes what this test made. */
  sweep(): Promise<void>
  /** Removes whatever still carries the run's label, then the subject. */
  close(): Promise<void>
}

/** Polls until `probe` gives something other than undefined. */
export async function until<T>(
  what: string,
  probe: () => Promise<T | undefined> | T | undefined,
  limitMs = 30_000,
): Promise<T> {
  const end = performance.now() + limitMs
  for (;;) {
    const value = await probe()
    if (value !== undefined) return value
    if (performance.now() > end) throw new Error(`waited ${limitMs} ms for ${what}`)
    await delay(50)
  }
}

/** Resolves with what the promise gives, or fails after `limitMs` saying what was waited for. */
export async function within<T>(what: string, promise: Promise<T>, limitMs = 30_000): Promise<T> {
  const done = new AbortController()
  try {
    return await Promise.race([
      promise,
      delay(limitMs, undefined, { signal: done.signal }).then(() => {
        throw new Error(`waited ${limitMs} ms for ${what}`)
      }),
    ])
  } finally {
    done.abort()
  }
}

/** Asserts that the call rejects with an `EngineError` of one of these kinds and, when given, that effect. */
export async function refused(
  promise: Promise<unknown>,
  kinds: EngineErrorKind | readonly EngineErrorKind[],
  effect?: 'none' | 'unknown',
): Promise<EngineError> {
  const outcome = await promise.then(
    () => 'it succeeded',
    (error: unknown) => error,
  )
  expect(outcome, 'an EngineError').toBeInstanceOf(EngineError)
  const error = outcome as EngineError
  expect([kinds].flat(), error.message).toContain(error.kind)
  if (effect !== undefined) expect(error.effect, error.message).toBe(effect)
  return error
}

/** What a trait promises and the subject must therefore bring. */
export function given<T>(part: T | undefined): T {
  if (part === undefined) throw new Error('the subject does not bring what its traits say')
  return part
}

export async function collect(stream: AsyncIterable<unknown>): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(Buffer.from(chunk as Uint8Array))
  return Buffer.concat(chunks)
}

export async function finish(stream: ExecStream): Promise<Finished> {
  const [code, stdout, stderr] = await within(
    'an exec to end',
    Promise.all([stream.exit, collect(stream.stdout), collect(stream.stderr)]),
    CALL_LIMIT_MS,
  )
  return { code, stdout, stderr }
}

export function createRig(traits: Traits): OwnedRig {
  const run = `t${randomBytes(5).toString('hex')}`
  const instances = new Set<string>()
  const volumes = new Set<string>()
  let opened: Subject | undefined
  let count = 0

  const subject = (): Subject => {
    if (opened === undefined) throw new Error('the subject did not open')
    return opened
  }
  const removeInstance = async (name: string): Promise<void> => {
    const facts = await subject().engine.inspectInstance(name, rig.call())
    if (facts !== null) await subject().engine.removeInstance(facts.id, rig.call())
    instances.delete(name)
  }
  const removeVolume = async (name: string): Promise<void> => {
    await subject().engine.removeVolume(name, rig.call())
    volumes.delete(name)
  }

  const rig: OwnedRig = {
    traits,
    get subject() {
      return subject()
    },
    get engine() {
      return subject().engine
    },
    get commands() {
      return subject().commands ?? posixCommands
    },
    get scratch() {
      return subject().scratch ?? '/tmp'
    },
    call: (over) => ({ limitMs: CALL_LIMIT_MS, ...over }),
    name: (prefix) => `hfc-${prefix}-${run}-${(count += 1)}`,
    labels: () => ({ [LABEL.installation]: `test-${run}`, [TEST_RUN_LABEL]: run }),
    request: (over) => ({
      name: rig.name('i'),
      labels: rig.labels(),
      image: subject().image,
      entrypoint: rig.commands.run,
      env: {},
      limits: {},
      mounts: [],
      workingDir: null,
      user: null,
      hostname: 'conformance',
      ...over,
    }),
    async create(over) {
      const request = rig.request(over)
      instances.add(request.name)
      const { id } = await subject().engine.createInstance(request, rig.call())
      return { id, name: request.name }
    },
    async running(over) {
      const made = await rig.create(over)
      await subject().engine.startInstance(made.id, rig.call())
      return made
    },
    async volume(over) {
      const request: CreateVolume = { name: rig.name('v'), labels: rig.labels(), sizeBytes: null, ...over }
      volumes.add(request.name)
      await subject().engine.createVolume(request, rig.call())
      return request.name
    },
    watchVolume: (name) => void volumes.add(name),
    async facts(nameOrId) {
      const facts = await subject().engine.inspectInstance(nameOrId, rig.call())
      if (facts === null) throw new Error(`${nameOrId} is absent`)
      return facts
    },
    ended: (id) =>
      until(`${id} to end`, async () => {
        const facts = await rig.facts(id)
        return facts.state === 'stopped' && facts.startedAt !== null ? facts : undefined
      }),
    async exec(id, command, over) {
      const stream = await subject().engine.exec(id, { command, stdin: false, ...over }, rig.call())
      return finish(stream)
    },
    async logs(id) {
      const out = { stdout: '', stderr: '' }
      const chunks = await subject().engine.logs(id, { follow: false, sinceMs: 0, tail: null }, rig.call())
      for await (const chunk of chunks) out[chunk.stream] += Buffer.from(chunk.data).toString()
      return out
    },
    async said(id, text) {
      await until(
        `${id} to say "${text}"`,
        async () => (await rig.logs(id)).stdout.includes(text) || undefined,
      )
    },
    async open(factory) {
      opened = await factory()
    },
    async sweep() {
      const errors: unknown[] = []
      for (const name of instances) await removeInstance(name).catch((error: unknown) => errors.push(error))
      for (const name of volumes) await removeVolume(name).catch((error: unknown) => errors.push(error))
      if (errors.length > 0) throw new AggregateError(errors, 'the test left something behind')
    },
    async close() {
      if (opened === undefined) return
      try {
        await rig.sweep()
        for (const facts of await opened.engine.listInstances(rig.call()))
          if (facts.labels[TEST_RUN_LABEL] === run) await opened.engine.removeInstance(facts.id, rig.call())
        for (const facts of await opened.engine.listVolumes(rig.call()))
          if (facts.labels[TEST_RUN_LABEL] === run) await opened.engine.removeVolume(facts.name, rig.call())
      } finally {
        await opened.cleanup()
      }
    },
  }
  return rig
}
