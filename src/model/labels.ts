import { createHash } from 'node:crypto'

/** Label keys are a format that lasts: they are on every engine object that Holdfast makes (DESIGN §2). */
export const LABEL = {
  installation: 'holdfast.dev/installation',
  uid: 'holdfast.dev/uid',
  name: 'holdfast.dev/name',
  sandbox: 'holdfast.dev/sandbox',
  instance: 'holdfast.dev/instance',
  kind: 'holdfast.dev/kind',
  specHash: 'holdfast.dev/spec-hash',
} as const

export type ObjectKind = 'instance' | 'volume'

/** Kubernetes' limit for a label's value, in characters; kept on every engine so that labels can move. */
export const LABEL_VALUE_MAX = 63

/** The `name` label's value: the name itself, or a hash of one that is too long to be a label's value. */
export function nameLabel(name: string): string {
  if (name.length <= LABEL_VALUE_MAX) return name
  return `h-${createHash('sha256').update(name).digest('hex').slice(0, 40)}`
}

export interface ObjectIdentity {
  readonly installation: string
  readonly uid: string
  readonly name: string
  readonly kind: ObjectKind
  readonly sandbox?: string | undefined
  readonly instance?: number | undefined
  readonly specHash?: string | undefined
}

export function labelsFor(o: ObjectIdentity): Record<string, string> {
  return {
    [LABEL.installation]: o.installation,
    [LABEL.uid]: o.uid,
    [LABEL.name]: nameLabel(o.name),
    [LABEL.kind]: o.kind,
    ...(o.sandbox === undefined ? {} : { [LABEL.sandbox]: o.sandbox }),
    ...(o.instance === undefined ? {} : { [LABEL.instance]: String(o.instance) }),
    ...(o.specHash === undefined ? {} : { [LABEL.specHash]: o.specHash }),
  }
}

/** The upstream protocol's own labels for a volume whose owner opted in to its removal. */
const OPT_IN = { managedBy: 'opensandbox.io/volume-managed-by', owner: 'opensandbox.io/id' } as const

/**
 * The recorded consent, on the object itself: the volume goes with this sandbox. It outlives the store, so that a
 * rebuilt one knows what may go and what not. Only for volumes that we make.
 */
export function optInLabels(sandbox: string): Record<string, string> {
  return { [OPT_IN.managedBy]: 'server', [OPT_IN.owner]: sandbox }
}

/** The sandbox that a volume goes with, as its labels say; null when it is to be retained. */
export function optedInFor(labels: Readonly<Record<string, string>>): string | null {
  return labels[OPT_IN.managedBy] === 'server' ? (labels[OPT_IN.owner] ?? null) : null
}

export type Ownership =
  /** Name, installation and uid agree: it is the object we journaled. */
  | 'ours'
  /** It carries our installation, but its own name is not the one in the label (an image or commit took the labels along). */
  | 'copied'
  /** Another installation's, or nobody's. */
  | 'foreign'

/**
 * Who an engine object belongs to (DESIGN §1.4): labels alone claim nothing, because images and commits carry
 * them along; a name alone claims nothing either.
 */
export function ownership(
  object: { readonly name: string; readonly labels: Readonly<Record<string, string>> },
  installation: string,
): Ownership {
  if (object.labels[LABEL.installation] !== installation) return 'foreign'
  if (object.labels[LABEL.name] !== nameLabel(object.name)) return 'copied'
  return object.labels[LABEL.uid] === undefined ? 'copied' : 'ours'
}

/** True when the object is exactly the one that was journaled under this name and uid. */
export function isExactly(
  object: { readonly name: string; readonly labels: Readonly<Record<string, string>> },
  want: { readonly installation: string; readonly name: string; readonly uid: string },
): boolean {
  return (
    object.name === want.name &&
    ownership(object, want.installation) === 'ours' &&
    object.labels[LABEL.uid] === want.uid
  )
}
