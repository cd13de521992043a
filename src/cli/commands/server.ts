import { Option } from 'commander'
import type { Define } from '../context.ts'
import { examples } from '../lifecycle.ts'
import { collect } from '../parse.ts'

interface ServerOptions {
  readonly stateDir?: string
  readonly listen?: string
  readonly proxyListen?: string
  readonly engine?: string
  readonly logLevel?: string
  readonly config?: string
  readonly tlsCert?: string
  readonly tlsKey?: string
  readonly insecureListen?: boolean
  readonly allowHostPath?: string[]
  readonly isolation?: 'namespaces' | 'none'
}

export const define: Define = (command, run) => {
  command
    .option('--state-dir <dir>', 'where the state lives (HOLDFAST_STATE_DIR)')
    .option('--listen <address>', 'API address, as 127.0.0.1:8080 (HOLDFAST_LISTEN)')
    .option(
      '--proxy-listen <address>',
      'address for what sandboxes serve (HOLDFAST_PROXY_LISTEN; default: the next port)',
    )
    .option('--engine <engine>', 'docker, podman, local or auto (HOLDFAST_ENGINE)')
    .option('--config <file>', 'configuration file')
    .option('--log-level <level>', 'trace, debug, info, warn, error or silent (HOLDFAST_LOG)')
    .option('--tls-cert <file>', 'certificate, needed to listen on more than loopback')
    .option('--tls-key <file>', 'its private key')
    .option('--insecure-listen', 'listen on more than loopback without TLS: something in front does it')
    .option(
      '--allow-host-path <prefix>',
      'sandboxes may mount host paths under it (repeatable; HOLDFAST_ALLOWED_HOST_PATHS)',
      collect,
    )
    .addOption(
      new Option('--isolation <kind>', 'of the local engine; none runs plain processes').choices([
        'namespaces',
        'none',
      ]),
    )
    .addHelpText(
      'after',
      examples([
        'holdfast server',
        'holdfast server --engine local --state-dir ./state --listen 127.0.0.1:9000',
      ]),
    )
    .addHelpText('after', 'Sandboxes keep running when the server ends; the next one goes on where it was.\n')
    .action((options: ServerOptions) =>
      run(command, async (context) => {
        const { runServer } = await import('../../main.ts')
        const { config, allowHostPath, ...same } = options
        const { apiKey } = context.globals
        return runServer({
          ...same,
          ...(config === undefined ? {} : { configFile: config }),
          ...(allowHostPath === undefined ? {} : { allowedHostPaths: allowHostPath }),
          ...(apiKey === undefined ? {} : { apiKey }),
        })
      }),
    )
}
