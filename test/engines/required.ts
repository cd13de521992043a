/** The engines whose tests a machine may lack. */
const ENGINES = ['docker', 'local'] as const
export type TestedEngine = (typeof ENGINES)[number]

/**
 * True when `HOLDFAST_REQUIRE_ENGINES`, names with commas between, has this one: then its tests fail where they would
 * be skipped on a machine without it. A name that no tests know throws, because it would require nothing.
 */
export function requires(engine: TestedEngine): boolean {
  const named = (process.env['HOLDFAST_REQUIRE_ENGINES'] ?? '')
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '')
  const unknown = named.filter((name) => !ENGINES.some((known) => known === name))
  if (unknown.length > 0)
    throw new Error(`HOLDFAST_REQUIRE_ENGINES can name ${ENGINES.join(', ')}, not ${unknown.join(', ')}`)
  return named.includes(engine)
}
