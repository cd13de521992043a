import type { FieldIssue } from '../../model/errors.ts'

/** Names as shells take them; others could not be used by a script. */
export function envIssues(env: Readonly<Record<string, string | null>>, at: string): FieldIssue[] {
  return Object.keys(env)
    .filter((name) => !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name) || name.length > 255)
    .map((name) => ({
      path: `${at}.${name}`,
      message: 'a name is letters, digits and "_", and begins with no digit',
    }))
}
