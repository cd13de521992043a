import { EngineError } from '../../model/facts.ts'

/** The longest line that is believed, characters: a message with a long list of attributes fits many times. */
const MAX_LINE = 4 * 1024 * 1024

/** The JSON values of a stream that has one per line. Rejects with `EngineError` on anything else. */
export async function* jsonLines(what: string, body: AsyncIterable<Buffer>): AsyncGenerator<unknown> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of body) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n')
    rest = lines.pop() ?? ''
    if (rest.length > MAX_LINE)
      throw new EngineError('failed', 'unknown', `${what}: a line of the answer has no end`)
    for (const line of lines) if (line.trim() !== '') yield parseLine(what, line)
  }
  if (rest.trim() !== '') yield parseLine(what, rest)
}

function parseLine(what: string, line: string): unknown {
  try {
    return JSON.parse(line) as unknown
  } catch (error) {
    throw new EngineError('failed', 'unknown', `${what}: a line of the answer is not JSON`, { cause: error })
  }
}
