import { type Mutant, quick } from './types.ts'

/** What comes in from outside: keys, names, paths, repeats. */
export const doorMutants: readonly Mutant[] = [
  {
    name: 'idempotency-key-ignored',
    breaks: 'A request that is sent again under its key is done again.',
    file: 'src/api/intents/commit.ts',
    find: `      const earlier = idem === null ? null : await replay(tx, idem, now)`,
    replace: `      const earlier = idem === null || now > 0 ? null : await replay(tx, idem, now)`,
    caughtBy: quick('test/quick/api-create.test.ts', 'covers wishes too'),
  },
  {
    name: 'another-request-under-the-key',
    breaks: 'Another request under a used key gets the first one’s answer, as if it had been done.',
    file: 'src/api/intents/commit.ts',
    find: `  if (row.requestHash !== idem.requestHash) {`,
    replace: `  if (row.requestHash === '') {`,
    caughtBy: quick('test/quick/api-create.test.ts', 'refuses another request under the same key'),
  },
  {
    name: 'any-key-fits',
    breaks: 'An API key is compared by its length.',
    file: 'src/store/secrets.ts',
    find: `  return a.length === b.length && timingSafeEqual(a, b)`,
    replace: `  return a.length === b.length || timingSafeEqual(a, b)`,
    caughtBy: quick('test/quick/api-front.test.ts', 'is 401, before the body is looked at'),
  },
  {
    name: 'key-stored-in-clear',
    breaks: 'The API key itself is in the database.',
    file: 'src/server/api-key.ts',
    find: `hash: hashApiKey(key), createdAt`,
    replace: `hash: key, createdAt`,
    caughtBy: quick('src/server/api-key.test.ts', 'is made and shown once, kept as a hash'),
  },
  {
    name: 'key-in-the-log',
    breaks: 'A wrong key is written to the log.',
    file: 'src/api/guard.ts',
    find: `      if (id === null) throw fail('INVALID_API_KEY', {})`,
    replace: `      if (id === null) {
        ctx.logger.warn({ key }, 'a key that is none of ours')
        throw fail('INVALID_API_KEY', {})
      }`,
    caughtBy: quick('test/quick/api-front.test.ts', 'no key is ever logged or answered'),
  },
  {
    name: 'host-not-checked',
    breaks: 'Any Host is served, so a web page reaches the API through a name of its own.',
    file: 'src/api/guard.ts',
    find: `    if (host === null || !hostAllowed(host, ctx.config.listen, ctx.config.allowedHosts)) {`,
    replace: `    if (host === null) {`,
    caughtBy: quick('test/quick/api-front.test.ts', 'Host'),
  },
  {
    name: 'climbing-entry-unpacked',
    breaks: 'An archive from a sandbox writes outside the directory that it is unpacked to.',
    file: 'src/cli/copy/paths.ts',
    find: `  if (parts.includes('..')) throw new UnsafeEntry(name, 'which climbs out with ..')`,
    replace: ``,
    caughtBy: quick('test/quick/cli-copy.test.ts', 'refuses names that climb or are absolute'),
  },
  {
    name: 'link-followed-while-unpacking',
    breaks: 'An archive from a sandbox writes through a link that it brought along.',
    file: 'src/cli/copy/unpack.ts',
    find: `      if (real !== root && !real.startsWith(root.endsWith(sep) ? root : root + sep)) {`,
    replace: `      if (real === '') {`,
    caughtBy: quick(
      'test/quick/cli-copy.test.ts',
      'refuses to write through a link that the archive brought along',
    ),
  },
  {
    name: 'host-paths-not-limited',
    breaks: 'A sandbox may mount any path of the host.',
    file: 'src/api/rules/paths.ts',
    find: `  return prefixes.some((prefix) => prefix.startsWith('/') && isUnder(wanted, normalise(prefix)))`,
    replace: `  return prefixes.length > 0 && wanted !== ''`,
    caughtBy: quick('test/quick/api-create.test.ts', 'host path /etc'),
  },
  {
    name: 'claim-reaches-a-volume-of-ours',
    breaks: 'A claim named like a physical volume opens another sandbox’s workspace.',
    file: 'src/api/intents/claims.ts',
    find: `  await refuseOurs(r, request.claim, facts)`,
    replace: ``,
    caughtBy: quick(
      'test/quick/api-volumes.test.ts',
      'cannot be a way into a volume of ours by its physical name',
    ),
  },
]
