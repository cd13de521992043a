/** Reconciler keys: what a journal row belongs to and what a queue carries. The journal keeps them, so they last. */
export const sandboxKey = (id: string): string => `sandbox/${id}`
export const volumeKey = (uid: string): string => `volume/${uid}`
export const sweepKey = (engine: string): string => `sweep/${engine}`
