/** `npm start`: the server from the sources, with what to do next. Flags after `--` go to it. */
import { main } from '../src/cli/cli.ts'

process.exit(await main(['server', ...process.argv.slice(2)]))
