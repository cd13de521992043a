import { createHash } from 'node:crypto'

/** What a client was promised about one sandbox: only acknowledged (2xx) answers are in it. */
export interface Promised {
  readonly id: string
  readonly name: string
  /** Claim of a second volume at `/data` that outlives the sandbox, or null: there is none, or it was purged. */
  claim: string | null
  desired: 'running' | 'paused' | 'stopped' | 'deleted'
  /** Checksums of acknowledged files by path. */
  readonly files: Map<string, string>
  /** Acknowledged lines of `/sandbox/counter.log`. */
  readonly lines: Set<number>
  /** All lines ever sent, acknowledged or not: each may be there once at most. */
  sent: number
  /** How often it may have been started at most: once per intent that can start it. */
  mayStart: number
}

export function promise(id: string, name: string, claim: string | null): Promised {
  return { id, name, claim, desired: 'running', files: new Map(), lines: new Set(), sent: 0, mayStart: 1 }
}

/** What all clients together know, and what went against the contract. */
export interface History {
  readonly sandboxes: Map<string, Promised>
  readonly counts: Map<string, number>
  readonly violations: string[]
  count(what: string): void
  violated(what: string): void
}

export function createHistory(): History {
  const counts = new Map<string, number>()
  const violations: string[] = []
  return {
    sandboxes: new Map(),
    counts,
    violations,
    count: (what) => void counts.set(what, (counts.get(what) ?? 0) + 1),
    violated: (what) => void violations.push(what),
  }
}

export const sha256 = (data: string | Uint8Array): string => createHash('sha256').update(data).digest('hex')

/**
 * Notes each start of its own, and counts on from where its last life ended: a second writer, or an older copy of the
 * data, would show as a number that is there twice or missing. Then waits for TERM.
 */
export const WORKLOAD: readonly string[] = [
  'sh',
  '-c',
  [
    `echo start >> /sandbox/starts.log`,
    `trap 'exit 0' TERM`,
    `n=$(tail -n 1 /sandbox/ticks.log 2>/dev/null)`,
    'n=${n:-0}',
    `while :; do n=$((n+1)); echo $n >> /sandbox/ticks.log; sleep 1 & wait $!; done`,
  ].join('; '),
]
