/** How long one observation may take, ms: a healthy engine answers in a few, a busy one in a second. */
export const OBSERVE_LIMIT_MS = 10_000
/** How long a full list may take, ms. */
export const LIST_LIMIT_MS = 30_000

/** Mutations an engine gets at most per second in the long run, and at once after a pause. */
export const TOKENS_PER_SECOND = 40
export const TOKEN_BURST = 120
/** Keys worked on at once per engine. */
export const KEYS_AT_ONCE = 12
/** Steps one pass takes before it gives its place to others and is enqueued again. */
export const STEPS_PER_PASS = 16
/** The wait of a key that took all of them, ms. */
export const AFTER_MANY_STEPS_MS = 1_000
/** Full list of an engine, ms. */
export const RESYNC_MS = 30_000
/** Expiry is looked for this often, ms. */
export const EXPIRY_TICK_MS = 1_000
/** Look again at an engine that could not be asked, ms. */
export const UNKNOWN_RETRY_MS = 5_000
